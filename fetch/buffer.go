package fetch

import (
	"io"
	"sync"
)

// Buffers come in few sizes, so that memory is used again.
var bufferSizes = [...]int64{8 << 10, 32 << 10, 128 << 10, 512 << 10, smallMessage + 1}

var bufferPools [len(bufferSizes)]sync.Pool

// bufferSize is the size of the buffer for a message listed with so many octets:
// one more must fit, to see that no more come, and the LF that may be added.
func bufferSize(listed int64) int64 {
	for _, s := range bufferSizes {
		if listed+2 <= s && (listed >= 0 || s == smallMessage+1) {
			return s
		}
	}
	return bufferSizes[len(bufferSizes)-1]
}

func getBuffer(size int64) *[]byte {
	for i, s := range bufferSizes {
		if s == size {
			if b, ok := bufferPools[i].Get().(*[]byte); ok {
				return b
			}
		}
	}
	b := make([]byte, 0, size)
	return &b
}

func putBuffer(b *[]byte) {
	for i, s := range bufferSizes {
		if int64(cap(*b)) == s {
			*b = (*b)[:0]
			bufferPools[i].Put(b)
			return
		}
	}
}

// readFull reads r to its end into buf, at most to the capacity of buf. full
// tells that buf is full and r may have more.
func readFull(buf *[]byte, r io.Reader) (full bool, err error) {
	b := (*buf)[:cap(*buf)]
	n := 0
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	*buf = b[:n]
	if err == io.EOF {
		return false, nil
	}
	return err == nil, err
}
