//! (being written)
/// One session.
pub async fn session(
    _shared: std::sync::Arc<crate::shared::Shared>,
    _stream: tenfold_service::acceptor::Stream,
    _user: std::sync::Arc<str>,
    _admin: bool,
    _id: u64,
) {
}
