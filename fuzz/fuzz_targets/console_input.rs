#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| magma_tests::fuzz::run("console_input", bytes));
