package testserver

import (
	"encoding/binary"
	"net"
	"strings"
)

// SRV is a record of the DNS server.
type SRV struct {
	Priority, Port uint16
	Target         string
}

// DNS is a name server on 127.0.0.1 (UDP) for SRV and MX records. All other names do
// not exist.
type DNS struct {
	SRV map[string][]SRV    // by full name: "_imaps._tcp.example.org"
	MX  map[string][]string // by domain
	// Fail has every question answered by SERVFAIL.
	Fail bool

	conn net.PacketConn
	done chan struct{}
}

// Start listens; Close must be called.
func (d *DNS) Start() (err error) {
	if d.conn, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		return err
	}
	d.done = make(chan struct{})
	go d.serve()
	return nil
}

// Addr is where it listens.
func (d *DNS) Addr() string { return d.conn.LocalAddr().String() }

// Close ends it.
func (d *DNS) Close() error {
	err := d.conn.Close()
	<-d.done
	return err
}

func (d *DNS) serve() {
	defer close(d.done)
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := d.answer(buf[:n]); answer != nil {
			_, _ = d.conn.WriteTo(answer, from) // a client that is gone asks again
		}
	}
}

const (
	typeMX  = 15
	typeSRV = 33
)

// answer is RFC 1035 section 4 for one question, without compression.
func (d *DNS) answer(q []byte) []byte {
	if len(q) < 17 {
		return nil
	}
	var labels []string
	i := 12
	for i < len(q) && q[i] != 0 {
		end := i + 1 + int(q[i])
		if end >= len(q) {
			return nil
		}
		labels = append(labels, strings.ToLower(string(q[i+1:end])))
		i = end
	}
	if i+5 > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[i+1:])
	question := q[12 : i+5]
	name := strings.Join(labels, ".")
	var records [][]byte
	switch kind {
	case typeSRV:
		for _, r := range d.SRV[name] {
			data := binary.BigEndian.AppendUint16(nil, r.Priority)
			data = binary.BigEndian.AppendUint16(data, 0)
			data = binary.BigEndian.AppendUint16(data, r.Port)
			records = append(records, append(data, encodeName(r.Target)...))
		}
	case typeMX:
		for n, host := range d.MX[name] {
			records = append(records, append(binary.BigEndian.AppendUint16(nil, uint16(n)), encodeName(host)...))
		}
	}
	flags := uint16(0x8180) // an answer, recursion available
	switch {
	case d.Fail:
		flags |= 2
		records = nil
	case len(records) == 0:
		flags |= 3 // the name does not exist
	}
	out := append([]byte(nil), q[:2]...)
	out = binary.BigEndian.AppendUint16(out, flags)
	for _, n := range []int{1, len(records), 0, 0} {
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	}
	out = append(out, question...)
	for _, r := range records {
		out = append(out, encodeName(name)...)
		out = binary.BigEndian.AppendUint16(out, kind)
		out = binary.BigEndian.AppendUint16(out, 1)
		out = binary.BigEndian.AppendUint32(out, 60)
		out = binary.BigEndian.AppendUint16(out, uint16(len(r)))
		out = append(out, r...)
	}
	return out
}

func encodeName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label != "" {
			b = append(append(b, byte(len(label))), label...)
		}
	}
	return append(b, 0)
}
