"""What the tests share: servers, lists, clocks and runners."""
