//! Signals, sent to this very process.

use nix::sys::signal::{Signal as Kind, raise};
use tenfold_service::signals::{Signal, Signals};

#[test]
fn each_signal_says_what_it_means() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut signals = Signals::install().unwrap();
        for (kind, meaning) in [
            (Kind::SIGTERM, Signal::Terminate),
            (Kind::SIGINT, Signal::Terminate),
            (Kind::SIGHUP, Signal::Reload),
            (Kind::SIGUSR1, Signal::Pause),
            (Kind::SIGUSR2, Signal::Resume),
            (Kind::SIGTERM, Signal::Terminate),
        ] {
            // Ignored, or it would end the process here.
            raise(Kind::SIGPIPE).unwrap();
            raise(kind).unwrap();
            assert_eq!(signals.next().await, meaning, "{kind}");
        }
    });
}
