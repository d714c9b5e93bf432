//! Whether those whom the owner of the device trusts vouch for a program: by a signature in its
//! image, or, if they have keys of cosign's, by one beside it.

use access::ModuleSigners;
#[cfg(feature = "cosign")]
use access::Unsigned;
use agent::Failure;
#[cfg(feature = "cosign")]
use protocol::Digest;
#[cfg(feature = "cosign")]
use registry::Cosigned;

use super::bench::failure;
use crate::fetch::{self, Fetched};

/// The code of whatever may not run.
const UNSIGNED: &str = "module_unsigned";

/// `given` is the signature that came with the task, for a program that came with it, too.
#[cfg_attr(
    not(feature = "cosign"),
    expect(
        unused_variables,
        clippy::unused_async,
        reason = "cosign's are asked for in a registry"
    )
)]
pub(super) async fn check(
    signers: &ModuleSigners,
    fetched: &Fetched,
    given: Option<&str>,
    settings: &fetch::Settings,
) -> Result<(), Failure> {
    let signature = fetched.signature.as_deref().or(given);
    match signers.check(fetched.program.digest(), signature) {
        Ok(()) => Ok(()),
        #[cfg(feature = "cosign")]
        Err(why) if signers.use_cosign() => check_cosigned(signers, fetched, settings, why).await,
        Err(why) => Err(failure(UNSIGNED, why)),
    }
}

/// What cosign signs is the manifest. It is here with an image that was pulled, and says which module
/// is meant; whoever hands a module over does not bring it.
#[cfg(feature = "cosign")]
async fn check_cosigned(
    signers: &ModuleSigners,
    fetched: &Fetched,
    settings: &fetch::Settings,
    why: Unsigned,
) -> Result<(), Failure> {
    let Some(image) = &fetched.image else {
        let also = "cosign signs the manifest of an image, and this module came without one: as a file, or handed over by the manager";
        return Err(failure(UNSIGNED, format!("{why}; {also}")));
    };
    let judge = |image: Digest, signed: &Cosigned| {
        let checked = signers.check_cosigned(image, &signed.payload, &signed.signature);
        checked.map_err(|why| why.to_string())
    };
    let judged = fetch::cosigned(image, settings, &judge).await;
    judged.map_err(|also| failure(also.code(), format!("{why}; {also}")))
}
