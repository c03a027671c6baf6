//! Bytes as a plan. What must hold is in `fanout_testing::hostile`, which seeded tests share.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fanout_testing::hostile::parse(bytes);
});
