//! What the commands do.

mod balance;
mod cat;
mod erase;
mod force;
mod inspect;
mod lava;
mod ls;
mod network;
mod print;

use std::rc::Rc;

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::logging::{Channel, Channels};

use super::admin::Admin;
use super::command::{Command, ENTRIES, Entry};
use super::files::{Files, Place, walk};
use super::output::{Gone, Output};
use super::{health, text};

/// One session's state between commands.
pub(super) struct Shell<F> {
    files: F,
    admin: Rc<dyn Admin>,
    place: Place,
}

/// What comes after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one.
    Prompt,
    /// The end of the session.
    Leave,
}

/// Why a command stopped.
enum Stop {
    /// Nobody is there to be told.
    Gone(Gone),
    /// This is to be told.
    Message(String),
}

impl From<Gone> for Stop {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// An error about a path, as one line.
fn about(command: &str, path: &[u8], error: FlareError) -> Stop {
    Stop::Message(format!("{command}: {}: {error}", text::escape_name(path)))
}

impl<F: Files> Shell<F> {
    /// A shell at the root.
    pub(super) fn new(files: F, admin: Rc<dyn Admin>) -> Self {
        Self { files, admin, place: Place::default() }
    }

    /// Where it is, for the prompt.
    pub(super) fn path(&self) -> String {
        text::escape_name(&self.place.path())
    }

    /// Runs a command. Dropping the future stops it.
    pub(super) async fn run(&mut self, command: Command, out: &mut Output) -> Result<Next, Gone> {
        let leaves = matches!(command, Command::Exit | Command::Shutdown { .. });
        let next = if leaves { Next::Leave } else { Next::Prompt };
        match self.dispatch(command, out).await {
            Ok(()) => {}
            Err(Stop::Gone(gone)) => return Err(gone),
            Err(Stop::Message(message)) => {
                if !out.at_line_start() {
                    out.text("\n").await?;
                }
                out.line(&message).await?;
            }
        }
        Ok(next)
    }

    async fn dispatch(&mut self, command: Command, out: &mut Output) -> Result<(), Stop> {
        let admin = &*self.admin;
        match command {
            Command::Nothing | Command::Exit => {}
            Command::Help(entry) => help(entry, out).await?,
            Command::Pwd => out.line(&self.path()).await?,
            Command::Cd(path) => self.cd(path.as_deref().unwrap_or(b"/")).await?,
            Command::Ls(paths) => ls::run(&self.files, &self.place, &paths, out).await?,
            Command::Cat(paths) => cat::run(&self.files, &self.place, &paths, out).await?,
            Command::Erase { recursive, paths } => {
                erase::run(&self.files, &self.place, &paths, recursive, out).await?;
            }
            Command::Inspect(subject) => inspect::run(&self.files, admin, &self.place, &subject, out).await?,
            Command::Lava => out.text(&lava::report(&admin.lava())).await?,
            Command::Health => out.text(&health::report(&admin.lava())).await?,
            Command::Load => out.text(&balance::load(&admin.lava())).await?,
            Command::BalancePlan => out.text(&balance::plan(&admin.lava())).await?,
            Command::Network(command) => network::run(admin, &command, out).await?,
            Command::CacheLoad => out.text(&print::cache_load(&admin.caches())).await?,
            Command::PrintCache => out.text(&print::caches(&admin.caches())).await?,
            Command::PrintAcl => out.text(&print::acl(&admin.acl())).await?,
            Command::PrintDebug => out.text(&print::channels(admin.channels())).await?,
            Command::Debug { on, channels } => debug(admin, on, channels, out).await?,
            Command::Shutdown { everywhere } => {
                tracing::info!(target: "magma::boot", everywhere, "shutdown asked for at the console");
                let members = admin.lava().topology.members.len();
                let what = if everywhere {
                    format!("the network ({})", text::count(members, "volcano"))
                } else {
                    "this volcano".to_owned()
                };
                out.line(&format!("shutting down {what}")).await?;
                out.flush().await?;
                admin.shutdown(everywhere);
            }
        }
        Ok(())
    }

    async fn cd(&mut self, path: &[u8]) -> Result<(), Stop> {
        let found =
            walk(&self.files, &self.place, path, true).await.map_err(|error| about("cd", path, error))?;
        if found.attr.kind != Kind::Directory {
            return Err(about("cd", path, FlareError::NotDirectory));
        }
        self.place = found.place;
        Ok(())
    }
}

async fn help(command: Option<&str>, out: &mut Output) -> Result<(), Gone> {
    for entry in ENTRIES.iter().filter(|entry| command.is_none_or(|command| entry.first_word() == command)) {
        let Entry { usage, about } = entry;
        out.line(&format!("{usage:<20} {about}")).await?;
    }
    if command.is_none() {
        out.line("Names with blanks stand in quotes; \\xNN in a name is the byte with that number.").await?;
    }
    Ok(())
}

async fn debug(admin: &dyn Admin, on: bool, channels: Channels, out: &mut Output) -> Result<(), Stop> {
    for channel in channels.iter() {
        admin.set_channel(channel, on).map_err(|error| Stop::Message(format!("debug: {error}")))?;
    }
    let names: Vec<&str> = channels.iter().map(Channel::name).collect();
    let state = if on { "on" } else { "off" };
    tracing::info!(target: "magma::boot", "debug {state} {} asked for at the console", names.join(" "));
    out.line(&format!("debug {state} {}", names.join(" "))).await?;
    Ok(())
}
