//! ONC RPC version 2 (RFC 5531): records, messages, credentials, connections, and the cache of replies.

pub(crate) mod auth;
pub(crate) mod connection;
pub(crate) mod message;
pub(crate) mod record;
pub(crate) mod reply_cache;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod writer;
