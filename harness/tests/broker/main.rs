//! The embedded broker under foreign clients: rskafka, librdkafka in process, and kcat where it is installed.

mod faults;
mod kcat;
mod ours;
mod rdkafka_client;
mod rskafka_client;
mod security;
mod support;
