//! `lava leave`, `stay`, `evict`, `replace`, `copies`, `stripes`, `balance`, `move` and `divide`: changes that the volcanos have to agree on.

use std::fmt::Write as _;
use std::time::Duration;

use magma_common::key::Ino;
use magma_common::stripes::StripeUnit;
use magma_common::topology::{Member, Slice, Topology, VolcanoId};
use tokio::time::{Instant, sleep};

use super::{Stop, balance, force};
use crate::console::admin::{Admin, Lava};
use crate::console::command::NetworkCommand;
use crate::console::health::{called, has_substitutes, name, names, silence};
use crate::console::output::Output;
use crate::console::text::{count, duration};
use crate::coordinator::{Change, SliceChange};

/// How long a command waits for the others to agree.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is not agreed on yet is asked for again after this time, because messages may be lost.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How often the topology is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Who was heard from within this time is not gone.
pub(super) const GONE: Duration = Duration::from_secs(5);

/// Changes to be asked for, and what to say when they are made.
pub(super) struct Wish {
    pub(super) changes: Vec<Change>,
    pub(super) done: String,
}

/// Does the command: says why not, or asks for the change and waits until the topology shows it.
pub(super) async fn run(admin: &dyn Admin, command: &NetworkCommand, out: &mut Output) -> Result<(), Stop> {
    if let NetworkCommand::Evict { nickname, force: true } = command {
        return force::run(admin, nickname, out).await;
    }
    let wish = wish(admin, &admin.lava(), command).map_err(Stop::Message)?;
    for change in wish.changes {
        agree(admin, &change).await?;
    }
    out.text(&wish.done).await?;
    if let NetworkCommand::Move { who, .. } = command {
        let lava = admin.lava();
        let wish = balance::share(&lava, named(&lava, who).map_err(Stop::Message)?);
        for change in wish.changes {
            agree(admin, &change).await?;
        }
        out.text(&wish.done).await?;
    }
    Ok(())
}

/// Asks for a change until the topology shows it.
async fn agree(admin: &dyn Admin, change: &Change) -> Result<(), Stop> {
    tracing::info!(target: "magma::boot", ?change, "a change of the network is asked for at the console");
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let lava = admin.lava();
        if is_made(&lava.topology, change) {
            return Ok(());
        }
        let change = up_to_date(&lava.topology, change);
        let is_begun = is_begun(&lava.topology, &change);
        if let Some(refusal) = asked.filter(|_| !is_begun).and_then(|_| admin.refusal(&change)) {
            return Err(Stop::Message(format!("refused: {refusal}")));
        }
        if started.elapsed() >= PATIENCE {
            return Err(Stop::Message(format!(
                "not agreed on within {}; `lava health` tells whether the votes are there, `lava` whether it was made after all",
                duration(PATIENCE)
            )));
        }
        if !is_begun && asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            admin.propose(change);
            asked = Some(Instant::now());
        }
        sleep(LOOK).await;
    }
}

/// The same change by what is known of the slice now.
fn up_to_date(topology: &Topology, change: &Change) -> Change {
    let Change::Slice(id, _, what) = change else { return change.clone() };
    let known = topology.slices.iter().find(|slice| slice.id == *id);
    known.map_or_else(|| change.clone(), |slice| Change::Slice(*id, slice.epoch, what.clone()))
}

fn is_made(topology: &Topology, change: &Change) -> bool {
    match change {
        Change::Leave(who, leaving) => {
            topology.member(*who).map_or(*leaving, |member| member.leaving == *leaving)
        }
        Change::Copies(copies) => topology.copies == *copies,
        Change::Balance(on) => topology.balancer == *on,
        Change::Stripes(unit) => topology.stripes == *unit,
        Change::Place(who, after) => topology.ring_from(*after).nth(1).is_some_and(|next| next.id == *who),
        Change::Slice(id, _, SliceChange::Assign(owner)) => {
            topology.slices.iter().any(|slice| slice.id == *id && slice.owner == *owner)
        }
        Change::Slice(_, _, SliceChange::Divide(division)) => {
            topology.slices.iter().any(|slice| slice.id == division.new)
        }
        _ => false,
    }
}

/// Whether the volcanos have agreed on a change that takes a while, so that it need not be asked for again.
fn is_begun(topology: &Topology, change: &Change) -> bool {
    let Change::Slice(id, _, SliceChange::Divide(division)) = change else { return false };
    topology.slices.iter().any(|slice| slice.id == *id && slice.dividing == Some(*division))
}

fn wish(admin: &dyn Admin, lava: &Lava, command: &NetworkCommand) -> Result<Wish, String> {
    match command {
        NetworkCommand::Leave(who) => {
            let member = match who {
                Some(nickname) => named(lava, nickname)?,
                None => lava
                    .topology
                    .member(lava.own)
                    .ok_or("this volcano is no member of the network any more")?,
            };
            leave(lava, member)
        }
        NetworkCommand::Stay(nickname) => stay(named(lava, nickname)?),
        NetworkCommand::Evict { nickname, .. } => evict(lava, named(lava, nickname)?),
        NetworkCommand::Copies(copies) => self::copies(lava, *copies),
        NetworkCommand::Stripes(unit) => stripes(lava, *unit),
        NetworkCommand::Balance(on) => balance::switch(lava, *on),
        NetworkCommand::BalanceNow => balance::now(lava),
        NetworkCommand::Move { who, after } => balance::place(lava, named(lava, who)?, named(lava, after)?),
        NetworkCommand::Replace { old, new } => replace(lava, named(lava, old)?, named(lava, new)?),
        NetworkCommand::Divide(which, at) => divide(admin, lava, which, *at),
    }
}

pub(super) fn named<'a>(lava: &'a Lava, nickname: &str) -> Result<&'a Member, String> {
    let members = &lava.topology.members;
    members.iter().find(|member| called(member) == nickname).ok_or_else(|| {
        let known: Vec<&Member> = members.iter().collect();
        format!("there is no volcano {nickname}; there are {}", names(&known))
    })
}

fn has_copy(topology: &Topology, who: VolcanoId) -> bool {
    topology.slices.iter().any(|slice| slice.copies().any(|copy| copy.volcano == who))
}

/// The volcanos that store and stay, without this one.
fn others<'a>(lava: &'a Lava, who: &Member) -> Vec<&'a Member> {
    let id = who.id;
    let stays = move |member: &&Member| member.id != id && member.stays();
    lava.topology.members.iter().filter(stays).collect()
}

fn leave(lava: &Lava, member: &Member) -> Result<Wish, String> {
    let who = called(member);
    if member.leaving {
        return Err(format!("{who} is leaving already; `lava health` shows how far that is"));
    }
    if let Some(silence) = silence(lava, member.id).filter(|silence| *silence >= GONE) {
        return Err(format!(
            "{who} has been silent for {} and cannot give anything away; `lava evict {who}` if it will not come back",
            duration(silence)
        ));
    }
    let others = others(lava, member);
    if !member.witness {
        if others.is_empty() {
            return Err(format!(
                "{who} cannot leave: it is the only volcano that stores, and nobody else could hold the data"
            ));
        }
        if others.iter().all(|other| silence(lava, other.id).is_some()) {
            return Err(format!(
                "{who} cannot leave now: {} would have to hold the data and is silent",
                names(&others)
            ));
        }
    }
    let copies = usize::from(lava.topology.copies);
    let fewer = if !member.witness && others.len() < copies {
        let (left, store) =
            (count(others.len(), "volcano"), if others.len() == 1 { "stores" } else { "store" });
        format!("Then only {left} {store}, and {copies} copies are wanted.\n")
    } else {
        String::new()
    };
    let what = if has_copy(&lava.topology, member.id) {
        "It goes on until others have everything that it has; then the network forgets it and its magmad ends by itself."
    } else {
        "It has no copy of anything: the network forgets it in a moment and its magmad ends by itself."
    };
    Ok(Wish {
        changes: vec![Change::Leave(member.id, true)],
        done: format!(
            "{who} is leaving. {what}\n{fewer}`lava health` shows how far that is; `lava stay {who}` keeps it.\n"
        ),
    })
}

fn stay(member: &Member) -> Result<Wish, String> {
    let who = called(member);
    if !member.leaving {
        return Err(format!("{who} is not leaving"));
    }
    let done = format!(
        "{who} stays, and takes a copy again if it is wanted to. `lava health` shows what is being done.\n"
    );
    Ok(Wish { changes: vec![Change::Leave(member.id, false)], done })
}

fn evict(lava: &Lava, member: &Member) -> Result<Wish, String> {
    let who = called(member);
    if member.id == lava.own {
        return Err(format!("this is {who} itself; `lava leave` lets it go in order"));
    }
    if silence(lava, member.id).is_none_or(|silence| silence < GONE) {
        return Err(format!(
            "{who} was heard from a moment ago; `lava leave {who}` lets it give its copies away first"
        ));
    }
    if !has_substitutes(lava, member) {
        return Err(format!(
            "{who} cannot be evicted: it has the only copy that is sure to have everything; start it, or bring its folder to another machine; `lava evict {who} --force` goes on without"
        ));
    }
    if lava.topology.slices.iter().any(|slice| slice.primary.volcano == member.id) {
        return Err(format!(
            "{who} cannot be evicted yet: a mirror has to take over first; see `lava health`"
        ));
    }
    if member.leaving {
        return Err(format!(
            "{who} is given up already; the network forgets it when it has neither copy nor vote"
        ));
    }
    let done = format!(
        "{who} is given up: the network forgets it when it has neither copy nor vote, which takes seconds.\n\
         Should it come back, it is not taken in with what it has.\n"
    );
    Ok(Wish { changes: vec![Change::Leave(member.id, true)], done })
}

/// The new one follows the old one on the ring, and so gets all that this one gives away, or what its mirrors still have of it.
fn replace(lava: &Lava, old: &Member, new: &Member) -> Result<Wish, String> {
    let (who, by) = (called(old), called(new));
    if old.id == new.id {
        return Err(format!("{who} cannot replace itself"));
    }
    if old.witness {
        return Err(format!("{who} is a witness and keeps nothing: join another one, and let {who} leave"));
    }
    if !new.stays() {
        return Err(format!("{by} is a witness or leaving, and has no place on the ring"));
    }
    if let Some(silence) = silence(lava, new.id) {
        return Err(format!("{by} has been silent for {} and can take nothing", duration(silence)));
    }
    let is_gone = old.id != lava.own && silence(lava, old.id).is_some_and(|silence| silence >= GONE);
    let goes = if is_gone { evict(lava, old) } else { leave(lava, old) }?;
    let follows = lava.topology.ring_from(old.id).nth(1).is_some_and(|next| next.id == new.id);
    let place = (!follows).then_some(Change::Place(new.id, old.id));
    Ok(Wish {
        changes: place.into_iter().chain(goes.changes).collect(),
        done: format!("{by} takes the place of {who} on the ring. {}", goes.done),
    })
}

/// The slice with this number, or the largest one that the volcano of this name serves.
fn slice_of<'a>(lava: &'a Lava, which: &str) -> Result<&'a Slice, String> {
    let slices = &lava.topology.slices;
    if let Some(slice) = slices.iter().find(|slice| slice.id.0.to_string() == which) {
        return Ok(slice);
    }
    if which.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("there is no slice {which}; `lava` lists them"));
    }
    let member = named(lava, which)?;
    let served = slices.iter().filter(|slice| slice.primary.volcano == member.id);
    let width = |slice: &&Slice| slice.range.stop().0 - slice.range.start().0;
    served.max_by_key(width).ok_or_else(|| format!("{which} serves no slice"))
}

fn divide(admin: &dyn Admin, lava: &Lava, which: &str, at: Option<Ino>) -> Result<Wish, String> {
    let slice = slice_of(lava, which)?;
    let id = slice.id;
    let at = match at {
        Some(at) => at,
        None => admin.median(id).map_err(|error| error.to_string())?.ok_or_else(|| {
            format!(
                "this volcano has no copy of slice {}: say where to divide it, or ask {}",
                id.0,
                name(&lava.topology, slice.primary.volcano)
            )
        })?,
    };
    let change = Change::division(&lava.topology, id, at).ok_or("there are no numbers left for slices")?;
    Ok(Wish {
        changes: vec![change],
        done: format!("slice {} is divided: keys from {:016x} on are another slice.\n", id.0, at.0),
    })
}

fn copies(lava: &Lava, copies: u8) -> Result<Wish, String> {
    let topology = &lava.topology;
    if topology.copies == copies {
        return Err(format!(
            "that many copies ({copies}) are wanted already; `lava health` shows whether they are there"
        ));
    }
    let storing = topology.members.iter().filter(|member| !member.witness && !member.leaving).count();
    let wanted = usize::from(copies);
    let mut done = match copies {
        1 => "1 copy is wanted: whoever loses that disk loses the files.\n".to_owned(),
        _ => format!("{copies} copies are wanted; they take {copies} times the space of one.\n"),
    };
    if wanted > storing {
        let there = are_volcanos(storing);
        // Writing to a string cannot fail.
        let _ = writeln!(done, "Only {there} there that could have one: join others (magmad -r).");
    }
    done += "`lava health` shows what is being done.\n";
    Ok(Wish { changes: vec![Change::Copies(copies)], done })
}

fn stripes(lava: &Lava, unit: Option<StripeUnit>) -> Result<Wish, String> {
    if lava.topology.stripes == unit {
        return Err(match unit {
            Some(unit) => format!("new files have stripes of {unit} already"),
            None => "new files have no stripes already".to_owned(),
        });
    }
    let done = match unit {
        Some(unit) => format!(
            "Files that are made from now on have stripes of {unit}; those that are there stay as they are.\n"
        ),
        None => "Files that are made from now on have no stripes; those that are there stay as they are.\n"
            .to_owned(),
    };
    Ok(Wish { changes: vec![Change::Stripes(unit)], done })
}

fn are_volcanos(number: usize) -> String {
    format!("{} {}", count(number, "volcano"), if number == 1 { "is" } else { "are" })
}
