//! The embedded broker under foreign clients: rskafka, librdkafka in process, kcat and the Java clients where they can be had.

mod faults;
mod java;
mod kcat;
mod ours;
mod rdkafka_client;
mod rskafka_client;
mod security;
mod support;
