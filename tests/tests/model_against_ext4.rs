//! The model agrees with the local file system: so a difference elsewhere is not the model's fault.

use magma_tests::model::Model;
use magma_tests::operation::{Tree, operation};
use magma_tests::through_files::ThroughFiles;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { ..ProptestConfig::default() })]

    #[test]
    fn the_model_and_the_local_file_system_agree(operations in proptest::collection::vec(operation(), 1..60)) {
        rustix::process::umask(rustix::fs::Mode::empty());
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut files = ThroughFiles::new(folder.path().to_owned());
        for (n, operation) in operations.iter().enumerate() {
            prop_assert_eq!(files.apply(operation), model.apply(operation), "operation {}: {:?}", n, operation);
        }
    }
}
