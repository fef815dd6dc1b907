//! Programs that people run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Bench, Figures, Rate};
use crate::error::{Doing, Result};
use crate::testing::command::{self, Show};
use crate::testing::random::Random;

/// None of the programs may take longer.
const LIMIT: Duration = Duration::from_secs(600);
/// Files of the tree that is unpacked, searched, cloned and removed.
const FILES: u64 = 2000;

/// `tar x`, `find` with the size of everything, `rm -r`.
pub(super) fn tar_find_remove(bench: &Bench) -> Result<Figures> {
    let files = bench.scaled(FILES);
    make_tree(&bench.scratch.join("tree"), files)?;
    let archive = bench.scratch.join("tree.tar");
    run(bench, Command::new("tar").arg("-C").arg(bench.scratch).arg("-cf").arg(&archive).arg("tree"))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bench.folder).arg("-xf").arg(&archive);
    let tree = bench.folder.join("tree");
    let unpack = Rate::of(files, || run(bench, &mut tar))?;
    let mut find = Command::new("find");
    find.arg(&tree).args(["-printf", "%s %p\\n"]);
    let search = Rate::of(files, || run(bench, &mut find))?;
    let mut rm = Command::new("rm");
    rm.arg("-r").arg(&tree);
    let remove = Rate::of(files, || run(bench, &mut rm))?;
    Ok(vec![
        ("tar x", "files/s", unpack),
        ("find with sizes", "files/s", search),
        ("rm -r", "files/s", remove),
    ])
}

/// `git clone` of a local repository, `git status` in the clone.
pub(super) fn git(bench: &Bench) -> Result<Figures> {
    let files = bench.scaled(FILES);
    let origin = bench.scratch.join("origin");
    make_tree(&origin, files)?;
    let git = || {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "safe.directory=*"]);
        command
    };
    run(bench, git().args(["init", "-q"]).arg(&origin))?;
    run(bench, git().arg("-C").arg(&origin).args(["add", "-A"]))?;
    run(bench, git().arg("-C").arg(&origin).args(["commit", "-q", "-m", "all"]))?;
    let clone = bench.folder.join("clone");
    let cloned =
        Rate::of(files, || run(bench, git().args(["clone", "-q", "--no-local"]).arg(&origin).arg(&clone)))?;
    let status = Rate::of(files, || run(bench, git().arg("-C").arg(&clone).args(["status", "--porcelain"])))?;
    Ok(vec![("git clone", "files/s", cloned), ("git status", "files/s", status)])
}

/// Transactions of one row.
pub(super) fn sqlite(bench: &Bench) -> Result<Figures> {
    let commits = bench.scaled(200);
    let script = bench.scratch.join("script.sql");
    let rows = (0..commits).map(|row| format!("insert into t values ({row}, 'text');"));
    let lines: Vec<String> =
        std::iter::once("create table t (a integer primary key, b);".to_owned()).chain(rows).collect();
    std::fs::write(&script, lines.join("\n")).doing(|| format!("{}", script.display()))?;
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg(bench.folder.join("base.db")).arg(format!(".read '{}'", script.display()));
    let rate = Rate::of(commits, || run(bench, &mut sqlite))?;
    Ok(vec![("sqlite commit", "commits/s", rate)])
}

fn run(bench: &Bench, command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command::succeed(&name, command, &bench.scratch.join("output"), Show::No, LIMIT)
}

/// Files of 0 to 32 KiB in folders of fifty.
fn make_tree(top: &Path, files: u64) -> Result<()> {
    let doing = || format!("{}", top.display());
    let mut random = Random::seeded(5);
    for number in 0..files {
        let folder = top.join(format!("d{}", number / 50));
        std::fs::create_dir_all(&folder).doing(doing)?;
        let length = usize::try_from(random.below(8) * random.below(8) * random.below(672)).unwrap_or(0);
        std::fs::write(folder.join(format!("f{number}")), random.bytes(length)).doing(doing)?;
    }
    Ok(())
}
