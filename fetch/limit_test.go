package fetch_test

import (
	"context"
	"fmt"
	"testing"

	"mailhaul/fetch"
)

// A limit takes so many new messages and leaves the rest to the next run; what is
// left is not taken for done.
func TestLimit(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint("m", i)))
	}
	o := w.options()
	o.Limit = 4
	for round, want := range []struct {
		archived, skipped int64
		more              bool
	}{{4, 0, true}, {4, 4, true}, {2, 8, false}, {0, 10, false}} {
		res, err := fetch.Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		w.sum(res)
		if res.Archived != want.archived || res.Skipped != want.skipped || res.More != want.more {
			t.Errorf("round %d: %+v", round, res)
		}
	}
	o.Limit = 10
	w.put("11", message("m11"))
	if res, err := fetch.Run(context.Background(), o); err != nil || res.Archived != 1 || res.More {
		t.Errorf("%+v %v", res, err)
	}
}

// Messages without UID come again every time, so they are not counted out.
func TestLimitWithoutUIDs(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.put("", message(fmt.Sprint("m", i)))
	}
	o := w.options()
	o.Limit = 2
	if res, err := fetch.Run(context.Background(), o); err != nil || res.Archived != 5 || res.More {
		t.Errorf("%+v %v", res, err)
	}
}
