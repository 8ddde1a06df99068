package durable

import "os"

// dirs keeps nothing open here.
type dirs struct{}

func (*dirs) close() {}

func (*dirs) verify(string, *os.File) error { return nil }

func (r *root) create(name string, flag int) (*os.File, error) {
	l, err := local("open", name)
	if err != nil {
		return nil, err
	}
	return r.r.OpenFile(l, flag, fileMode)
}

func (r *root) rename(from, to string) error {
	lf, err := local("rename", from)
	if err != nil {
		return err
	}
	lt, err := local("rename", to)
	if err != nil {
		return err
	}
	return r.r.Rename(lf, lt)
}
