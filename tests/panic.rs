//! A panic inside the library, provoked through an entry point that only tests have.
#![allow(missing_docs, unsafe_code)]
#![cfg(feature = "test-hooks")]

use mvm::capi::library::mvm_test_panic;
use mvm::capi::status::{mvm_error, mvm_last_error, mvm_status};
use std::mem::MaybeUninit;

#[test]
fn a_panic_comes_back_as_a_status_with_its_text() {
    assert_eq!(mvm_test_panic(), mvm_status::MVM_ERR_INTERNAL);
    let mut error = MaybeUninit::<mvm_error>::zeroed();
    // SAFETY: `error` is a whole mvm_error whose first field, its size, is set.
    let error = unsafe {
        error.as_mut_ptr().cast::<u32>().write(u32::try_from(size_of::<mvm_error>()).unwrap_or_default());
        assert_eq!(mvm_last_error(error.as_mut_ptr()), mvm_status::MVM_OK);
        error.assume_init()
    };
    assert_eq!(error.status, mvm_status::MVM_ERR_INTERNAL);
    let message: String = error.message.iter().map(|byte| char::from(byte.cast_unsigned())).collect();
    assert!(message.contains("a panic made for a test") && message.contains("library.rs"), "{message}");
}

#[test]
fn a_caller_goes_on_after_a_panic() {
    for _ in 0..3 {
        assert_eq!(mvm_test_panic(), mvm_status::MVM_ERR_INTERNAL);
    }
}
