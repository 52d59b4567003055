"""What the tests share: calling commands, small nets, fakes of the parts around the one under test."""
