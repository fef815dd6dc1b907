//! The suites that use whole processes and real kernels.
//!
//! Each runs as a process of its own in a network namespace of its own (`guest/network`), so all use the
//! same ports and none can disturb another or the machine.

mod demo;
mod doors;
mod drills;
mod fsx;
mod hostile;
mod pjdfstest;
mod ring;
mod script;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Doing, Result, wrong};
use crate::guest::Door;
use crate::lava::{Lava, SUITE_PORTS};
use crate::programs::Programs;
use crate::ring::Layout;
use crate::tally::Tally;
use crate::testing::scratch::Scratch;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// How much longer the long form of a drill may take.
pub(crate) const LONGER: u32 = 5;

/// A suite.
pub(crate) struct Suite {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// The longest that it may take.
    pub(crate) limit: Duration,
    run: fn(&Context) -> Result<Tally>,
}

/// All suites, in the order in which they run.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "demo",
        about: "the demo starts, shows its doors, ends on Ctrl-C and finds its files again",
        limit: minutes(4),
        run: demo::run,
    },
    Suite {
        name: "pjdfstest-fuse",
        about: "POSIX cases through FUSE",
        limit: minutes(6),
        run: |context| pjdfstest::run(context, Through::Fuse, Layout::ONE),
    },
    Suite {
        name: "pjdfstest-nfs",
        about: "POSIX cases through a kernel's NFSv3 client",
        limit: minutes(10),
        run: |context| pjdfstest::run(context, Through::Guest(Door::Nfs), Layout::ONE),
    },
    Suite {
        name: "pjdfstest-9p",
        about: "POSIX cases through a kernel's 9P2000.L client",
        limit: minutes(10),
        run: |context| pjdfstest::run(context, Through::Guest(Door::NinepClient), Layout::ONE),
    },
    Suite {
        name: "fsx-fuse",
        about: "random reads, writes, maps and truncates through FUSE",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Fuse, Layout::ONE),
    },
    Suite {
        name: "fsx-striped",
        about: "the same on files with stripes of 64 KiB over slices of two volcanos",
        limit: minutes(5),
        run: fsx::run_striped,
    },
    Suite {
        name: "fsx-nfs",
        about: "random reads, writes, maps and truncates through NFSv3",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Guest(Door::Nfs), Layout::ONE),
    },
    Suite {
        name: "fsx-9p",
        about: "random reads, writes and truncates through 9P",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Guest(Door::NinepClient), Layout::ONE),
    },
    Suite {
        name: "workloads-fuse",
        about: "git, tar, sqlite, fio, storms, big folders, sparse files, odd names through FUSE",
        limit: minutes(8),
        run: |context| workloads::run(context, Through::Fuse),
    },
    Suite {
        name: "workloads-nfs",
        about: "the same through NFSv3",
        limit: minutes(12),
        run: |context| workloads::run(context, Through::Guest(Door::Nfs)),
    },
    Suite {
        name: "workloads-9p",
        about: "the same through 9P, each user attaching",
        limit: minutes(12),
        run: |context| workloads::run(context, Through::Guest(Door::NinepUser)),
    },
    Suite { name: "doors", about: "three doors at once on one tree", limit: minutes(5), run: doors::run },
    Suite {
        name: "drill-gateway",
        about: "gateways are killed and restarted under load",
        limit: minutes(6),
        run: drills::gateways,
    },
    Suite {
        name: "drill-volcano",
        about: "the volcano is killed and restarted under load through all doors",
        limit: minutes(8),
        run: drills::volcano,
    },
    Suite {
        name: "hostile",
        about: "hostile clients on every port cost themselves and nobody else",
        limit: minutes(5),
        run: hostile::run,
    },
    Suite {
        name: "ring-failover",
        about: "one of three volcanos at a time is killed, stopped, cut off; nobody waits long",
        limit: minutes(8),
        run: ring::failover::run,
    },
    Suite {
        name: "ring-doors",
        about: "volcanos and gateways of a ring end under load through all doors",
        limit: minutes(12),
        run: ring::doors::run,
    },
    Suite {
        name: "ring-power",
        about: "all volcanos of a ring end at once, again and again",
        limit: minutes(10),
        run: ring::power::run,
    },
    Suite {
        name: "ring-grow",
        about: "a ring grows from one to five volcanos and shrinks to two under load",
        limit: minutes(8),
        run: ring::grow::run,
    },
    Suite {
        name: "ring-spread",
        about: "a ring of one slice is divided and spread over its volcanos under load, with striped files",
        limit: minutes(10),
        run: ring::spread::run,
    },
    Suite {
        name: "ring-pjdfstest-fuse",
        about: "POSIX cases through FUSE on a ring of three",
        limit: minutes(6),
        run: |context| pjdfstest::run(context, Through::Fuse, RING),
    },
    Suite {
        name: "ring-pjdfstest-nfs",
        about: "POSIX cases through NFSv3 on a ring of three",
        limit: minutes(10),
        run: |context| pjdfstest::run(context, Through::Guest(Door::Nfs), RING),
    },
    Suite {
        name: "ring-pjdfstest-9p",
        about: "POSIX cases through 9P2000.L on a ring of three",
        limit: minutes(10),
        run: |context| pjdfstest::run(context, Through::Guest(Door::NinepClient), RING),
    },
    Suite {
        name: "ring-fsx-fuse",
        about: "random reads, writes, maps and truncates through FUSE on a ring of three",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Fuse, RING),
    },
    Suite {
        name: "ring-fsx-nfs",
        about: "random reads, writes, maps and truncates through NFSv3 on a ring of three",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Guest(Door::Nfs), RING),
    },
    Suite {
        name: "ring-fsx-9p",
        about: "random reads, writes and truncates through 9P on a ring of three",
        limit: minutes(5),
        run: |context| fsx::run(context, Through::Guest(Door::NinepClient), RING),
    },
];

/// Which way a suite reaches the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// The FUSE mount on this host.
    Fuse,
    /// A mount in the guest.
    Guest(Door),
}

impl Through {
    fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Guest(door) => door.name(),
        }
    }
}

/// Three volcanos on machines of their own.
const RING: Layout = Layout::Machines(3);

/// What a suite has at hand.
struct Context {
    programs: Programs,
    folder: PathBuf,
    limit: Duration,
    /// A drill goes on for longer and does worse.
    long: bool,
    /// When a drill in its long form begins nothing more.
    end: Option<Instant>,
}

impl Context {
    /// A new lava network of one volcano in a folder of its own, which goes when the suite has passed.
    fn lava(&self) -> Result<(Scratch, Lava)> {
        self.lava_of(Layout::ONE)
    }

    /// The same with these volcanos.
    fn lava_of(&self, layout: Layout) -> Result<(Scratch, Lava)> {
        let scratch = Scratch::fresh(&self.folder, "lava")?;
        let lava = Lava::at(&self.programs, scratch.path(), layout, SUITE_PORTS)?;
        Ok((scratch, lava))
    }

    /// Takes the network down; keeps its folder if something failed.
    fn finish(scratch: Scratch, lava: Lava, tally: &mut Tally) {
        tally.check("everything ends in order", lava.stop().map_err(|error| error.to_string()));
        if tally.failed == 0 {
            scratch.discard();
        }
    }

    /// The folder that the guest sees as `/share`: our scripts and the public suites.
    fn share(&self) -> Result<Scratch> {
        let share = Scratch::fresh(&self.folder, "share")?;
        copy_files(&self.programs.integration().join("workloads"), &share.folder("workloads")?)?;
        let bin = share.folder("bin")?;
        for tool in ["pjdfstest", "fsx"] {
            copy(&self.programs.tool(tool), &bin.join(tool))?;
        }
        Ok(share)
    }

    fn time_is_up(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn log(&self, name: &str) -> Result<PathBuf> {
        let logs = self.folder.join("logs");
        std::fs::create_dir_all(&logs).doing(|| format!("cannot make {}", logs.display()))?;
        Ok(logs.join(format!("{name}.log")))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(|_| ())
        .doing(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let reading = || format!("cannot read {}", from.display());
    for entry in std::fs::read_dir(from).doing(reading)? {
        let entry = entry.doing(reading)?;
        if entry.file_type().doing(reading)?.is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Options of the process that runs one suite.
#[derive(Debug, Args)]
pub(crate) struct Options {
    name: String,
    /// Folder for logs and files.
    #[arg(long)]
    folder: PathBuf,
    /// Where the outcome goes, as JSON.
    #[arg(long)]
    report: PathBuf,
    /// The long form of a drill, for a soak, which begins nothing more after so many seconds.
    #[arg(long)]
    long: Option<u64>,
}

/// Runs one suite and writes its report.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let Some(suite) = ALL.iter().find(|suite| suite.name == options.name) else {
        return wrong(format!("there is no suite \"{}\"", options.name));
    };
    let limit = if options.long.is_some() { suite.limit * LONGER } else { suite.limit };
    let context = Context {
        programs: Programs::locate()?,
        folder: options.folder.clone(),
        limit,
        long: options.long.is_some(),
        end: options.long.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
    };
    let tally = (suite.run)(&context).unwrap_or_else(|error| {
        println!("  FAILED  {}: {error}", suite.name);
        Tally::FAILED
    });
    let text =
        serde_json::to_string(&tally).map_err(|error| crate::error::Error::Wrong(error.to_string()))?;
    std::fs::write(&options.report, text).doing(|| format!("cannot write {}", options.report.display()))?;
    Ok(tally.failed == 0)
}
