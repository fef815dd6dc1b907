//! SIGINT, SIGTERM and SIGHUP become a flag that every wait looks at.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Doing, Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen. Called once, before any process is started.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "cannot start the signal listener".to_owned())?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(first_signal()) {
                eprintln!("signals are not listened to: {error}");
            }
            INTERRUPTED.store(true, Ordering::SeqCst);
        })
        .doing(|| "cannot start the signal listener".to_owned())?;
    Ok(())
}

async fn first_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Whether the end was asked for.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// An error once the end was asked for.
pub(crate) fn check() -> Result<()> {
    if interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}
