# Varnish as a cache at its best: its own rules of what is stored, in its own memory (see its parameters in
# crates/xtask/src/bench/server.rs), nothing written but its log in shared memory.
vcl 4.1;

backend origin {
  .host = "127.0.0.1";
  .port = "@ORIGIN@";
}
