//! Settings that the crate's tests share.

use proptest::test_runner::Config;

/// `number` cases of a property, or as many as the environment variable `PROPTEST_CASES` asks for: fewer under tools
/// that slow the tests down.
pub(crate) fn cases(number: u32) -> Config {
    let default = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { Config::with_cases(number) }
}
