"""Binary formats read in place, without the framework that defines them: protobuf and flatbuffers."""
