//! What the suites need beyond our own programs: the public test suites and the guest's image. Both are
//! made once and kept in `target/`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::programs::Programs;
use crate::testing::command::{self, Show};

/// The public suites, each at the version whose expected results are in `integration/expected/`.
const TOOLS: [(&str, &str); 2] = [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];
/// Building one of them.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Downloading a minimal Debian.
const IMAGE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Makes what is missing.
pub(super) fn prepare(programs: &Programs, logs: &Path) -> Result<()> {
    println!("\n=== tools: public test suites and the guest's image");
    let root = programs.target().join("tools");
    for (name, version) in TOOLS {
        let stamp = root.join(format!("{name}-{version}"));
        if stamp.exists() && programs.tool(name).exists() {
            continue;
        }
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["install", "--locked", "--force", "--root"])
            .arg(&root)
            .arg(format!("{name}@{version}"));
        command.env("CARGO_TARGET_DIR", root.join("build"));
        let log = logs.join(format!("{name}.log"));
        command::succeed(&format!("the installation of {name}"), &mut command, &log, Show::Yes, BUILD_LIMIT)?;
        std::fs::write(&stamp, version).doing(|| format!("cannot write {}", stamp.display()))?;
    }
    let build = root.join("build");
    if build.exists() {
        std::fs::remove_dir_all(&build).doing(|| format!("cannot remove {}", build.display()))?;
    }
    let mut image = Command::new(programs.integration().join("guest/image"));
    image.env("GUEST_DIR", programs.guest_image());
    command::succeed("the guest's image", &mut image, &logs.join("guest.log"), Show::Yes, IMAGE_LIMIT)
}
