//! The portmapper, version 2 (RFC 1833 §3): where NFS and MOUNT are. It registers nothing for others.

use crate::dispatch::{Arrival, Fault};
use crate::gateway::Gateway;
use crate::rpc::message::{Accept, Call, accepted};
use crate::xdr::{Body, Decoder};
use crate::{mount, nfs3};

pub(crate) const PROGRAM: u32 = 100_000;
const VERSION: u32 = 2;
const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_UDP: u32 = 17;

/// What is reachable: program, version, protocol. Lock and status managers are not, and so have port 0.
const SERVED: &[(u32, u32, u32)] = &[
    (nfs3::PROGRAM, nfs3::VERSION, PROTOCOL_TCP),
    (mount::PROGRAM, 1, PROTOCOL_TCP),
    (mount::PROGRAM, 2, PROTOCOL_TCP),
    (mount::PROGRAM, mount::VERSION, PROTOCOL_TCP),
    (mount::PROGRAM, 1, PROTOCOL_UDP),
    (mount::PROGRAM, 2, PROTOCOL_UDP),
    (mount::PROGRAM, mount::VERSION, PROTOCOL_UDP),
];

/// Answers a call to the portmapper.
pub(crate) fn answer(gateway: &Gateway, arrival: &Arrival, call: &Call) -> Result<Body, Fault> {
    if call.version != VERSION {
        return Err(Fault::Version { low: VERSION, high: VERSION });
    }
    let mut arguments = Decoder::new(call.arguments.clone());
    let port = u32::from(gateway.nfs_port(arrival.peer.dialled));
    let mut out = accepted(call.xid, Accept::Success);
    match call.procedure {
        // NULL
        0 => {}
        // SET and UNSET: what others want registered is refused.
        1 | 2 => {
            let _mapping = mapping(&mut arguments)?;
            out.bool(false);
        }
        // GETPORT
        3 => {
            let (program, _version, protocol) = mapping(&mut arguments)?;
            let served = SERVED.iter().any(|&(served, _, over)| served == program && over == protocol);
            out.u32(if served { port } else { 0 });
        }
        // DUMP
        4 => {
            for &(program, version, protocol) in SERVED {
                out.bool(true);
                out.u32(program);
                out.u32(version);
                out.u32(protocol);
                out.u32(port);
            }
            out.bool(false);
        }
        _ => return Err(Fault::Procedure),
    }
    Ok(out.finish())
}

fn mapping(arguments: &mut Decoder) -> Result<(u32, u32, u32), Fault> {
    let mapping = (arguments.u32()?, arguments.u32()?, arguments.u32()?);
    let _port = arguments.u32()?;
    arguments.finish()?;
    Ok(mapping)
}
