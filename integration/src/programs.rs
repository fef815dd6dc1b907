//! Where the programs, tools and folders of this checkout are.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Result, wrong};

/// The checkout that this program was built in.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    root: PathBuf,
    binaries: PathBuf,
}

impl Programs {
    /// Finds the checkout by the place of the running binary: `ROOT/target/PROFILE/magma-integration`.
    pub(crate) fn locate() -> Result<Self> {
        let own = std::env::current_exe().doing(|| "cannot find this program's own path".to_owned())?;
        let binaries = own.parent().map(Path::to_owned).unwrap_or_default();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
        if !root.join("Cargo.lock").exists() {
            return wrong(format!("the checkout {} is gone; build again in the new place", root.display()));
        }
        Ok(Self { root, binaries })
    }

    /// The top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `integration/`.
    pub(crate) fn integration(&self) -> PathBuf {
        self.root.join("integration")
    }

    /// What cargo and the suites write.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// One of our programs, as built beside this one.
    pub(crate) fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.binaries.join(name);
        if path.exists() { Ok(path) } else { wrong(format!("{} is not built", path.display())) }
    }

    /// A public test suite, as installed by the `tools` step.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.target().join("tools/bin").join(name)
    }

    /// The guest's image.
    pub(crate) fn guest_image(&self) -> PathBuf {
        self.target().join("guest")
    }

    /// Logs and folders of test runs.
    pub(crate) fn runs(&self) -> PathBuf {
        self.target().join("integration")
    }
}
