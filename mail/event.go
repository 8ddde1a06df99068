package mail

// Event is what an engine tells while it works. Engines emit events, only the
// user interface prints.
type Event struct {
	Kind    EventKind
	Ref     Ref    // the mailbox, or the message
	N       int64  // messages: planned, or done since the last event of this kind
	Octets  int64  // octets, likewise
	Reason  string // why a message is suspicious
	Err     error  // what failed
	Waiting string // why the run waits ("server asks for 30 s")
}

// EventKind names what happened.
type EventKind int

const (
	EventMailbox    EventKind = iota // a mailbox was listed: N messages and Octets to do
	EventProgress                    // N messages, Octets moved (not yet durable)
	EventDone                        // N messages, Octets are durable, deleted or uploaded
	EventFailed                      // one message failed: Ref, Err
	EventSuspicious                  // one message is archived but suspicious: Ref, Reason
	EventWarning                     // something a person should know: Err
	EventWaiting                     // the run waits
)

// Notify takes events. It may be called from several goroutines at once and must
// not block for long.
type Notify func(Event)
