package fetch

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"mailhaul/mail"
)

// asked tells which of the messages asked for have come. It takes five octets for
// each besides the list itself.
type asked struct {
	wants []mail.Want
	came  []bool
	next  int      // messages mostly come in the order they were asked for
	order []uint32 // indexes into wants by key; made when one came out of order
}

func newAsked(wants []mail.Want) *asked {
	return &asked{wants: wants, came: make([]bool, len(wants))}
}

// compareWants orders by UID, and those without by number.
func compareWants(a, b mail.Want) int {
	if a.UID != "" || b.UID != "" {
		return cmp.Or(cmp.Compare(len(a.UID), len(b.UID)), strings.Compare(a.UID, b.UID))
	}
	return cmp.Compare(a.Seq, b.Seq)
}

// find returns the first message with this key whose state is came, or -1.
func (a *asked) find(uid string, seq uint32, came bool) int {
	w := mail.Want{UID: uid, Seq: seq}
	for _, i := range []int{a.next, a.next - 1} {
		if i >= 0 && i < len(a.wants) && a.came[i] == came && compareWants(a.wants[i], w) == 0 {
			return i
		}
	}
	if a.order == nil {
		a.order = make([]uint32, len(a.wants))
		for i := range a.order {
			a.order[i] = uint32(i)
		}
		slices.SortStableFunc(a.order, func(x, y uint32) int { return compareWants(a.wants[x], a.wants[y]) })
	}
	at, _ := slices.BinarySearchFunc(a.order, w, func(i uint32, w mail.Want) int { return compareWants(a.wants[i], w) })
	for ; at < len(a.order) && compareWants(a.wants[a.order[at]], w) == 0; at++ {
		if i := int(a.order[at]); a.came[i] == came {
			return i
		}
	}
	return -1
}

// take notes that a message has come; false if it is not awaited.
func (a *asked) take(uid string, seq uint32) bool {
	i := a.find(uid, seq, false)
	if i < 0 {
		return false
	}
	a.came[i], a.next = true, i+1
	return true
}

// giveBack takes back that a message has come.
func (a *asked) giveBack(uid string, seq uint32) {
	if i := a.find(uid, seq, true); i >= 0 {
		a.came[i] = false
	}
}

// pending yields the messages that have not come.
func (a *asked) pending() iter.Seq[mail.Want] {
	return func(yield func(mail.Want) bool) {
		for i, w := range a.wants {
			if !a.came[i] && !yield(w) {
				return
			}
		}
	}
}
