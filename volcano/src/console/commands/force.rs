//! `lava evict NICK --force`: going on without a volcano against the rules of the vote.

use magma_common::topology::{Member, Topology};

use super::Stop;
use super::network::{GONE, named};
use crate::console::admin::{Admin, Lava};
use crate::console::health::{called, has_substitutes, silence};
use crate::console::output::Output;
use crate::console::text::duration;

/// Does it, or says why not; then what may be missing.
pub(super) async fn run(admin: &dyn Admin, nickname: &str, out: &mut Output) -> Result<(), Stop> {
    let lava = admin.lava();
    let member = named(&lava, nickname).map_err(Stop::Message)?;
    let text = check(&lava, member).map_err(Stop::Message)?;
    tracing::warn!(target: "magma::boot", volcano = called(member), "an eviction by force is asked for at the console");
    admin.force_out(member.id).map_err(|refusal| Stop::Message(format!("refused: {refusal}")))?;
    out.text(&text).await?;
    Ok(())
}

/// What will have happened; or why it must not.
fn check(lava: &Lava, member: &Member) -> Result<String, String> {
    let who = called(member);
    if member.id == lava.own {
        return Err(format!("this is {who} itself; `lava leave` lets it go in order"));
    }
    let Some(silence) = silence(lava, member.id).filter(|silence| *silence >= GONE) else {
        return Err(format!("{who} was heard from a moment ago: nobody may go on without it by force"));
    };
    if lava.leader.is_some() && has_substitutes(lava, member) {
        return Err(format!("no force is needed: `lava evict {who}` does it, and nothing is lost"));
    }
    let Some(own) = lava.topology.member(lava.own) else {
        return Err("this volcano is no member of the network any more".to_owned());
    };
    if own.witness {
        return Err(
            "a witness stores nothing and cannot go on alone; ask a volcano that has a copy".to_owned()
        );
    }
    let silence = duration(silence);
    Ok(format!(
        "{who} is out, and {own} goes on without asking anybody: the network is another line of history now.\n\
         {kept}\
         {who} was last heard from {silence} ago. If it went on serving clients after that, what they were told is not here.\n\
         Should it come back, it stops by itself and its folder stays as it is, aside. To use that machine again: join with an empty folder.\n",
        own = called(own),
        kept = kept(&lava.topology, own),
    ))
}

/// What this volcano has, by what it knows.
fn kept(topology: &Topology, own: &Member) -> &'static str {
    let (mut all_alive, mut all_had) = (true, true);
    for slice in &topology.slices {
        all_alive &= slice.in_sync().any(|copy| copy == own.replica());
        all_had &= slice.in_sync().any(|copy| copy.volcano == own.id);
    }
    if all_alive {
        "This volcano had everything that was acknowledged until then.\n"
    } else if all_had {
        "This volcano had everything in its former life. What was not on its disk when it stopped may be missing.\n"
    } else {
        "Not all copies here were in sync: what was written since they fell behind is missing, unless another volcano that stays has it.\n"
    }
}
