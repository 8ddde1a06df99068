package dial

import "io"

// Trace writes what goes over connections, one line per protocol line, with
// secrets and message octets left out. It may be shared by connections.
type Trace struct {
	W io.Writer
}
