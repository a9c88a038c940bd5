package debughttp

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Lost places are told by line, since the first of them was lost, and with nothing else to
// look at they are what to look at first.
func TestLostGroups(t *testing.T) {
	s := &snapshot{now: noon, stats: tracker.Stats{Lost: 3, Verdict: tracker.Bad}}
	for i, kind := range []tracker.Kind{tracker.KindTransaction, tracker.KindRows, tracker.KindRows} {
		s.records = append(s.records, tracker.Record{
			Pool: "db", ConnectionID: string(rune('a' + i)), Lost: true, LostSince: noon.Add(time.Duration(i-10) * time.Minute), Undone: kind,
		})
	}
	s.records = append(s.records, tracker.Record{Pool: "db", ConnectionID: "x"})
	got := s.lostGroups()
	if len(got) != 2 || got[0].Count != 2 || got[0].Where != "b, c" || got[0].For != "9m0s" || got[0].Undone != "the rows were closed" || got[1].Fix != (tracker.Leak{Kind: tracker.KindTransaction}).Cure() {
		t.Errorf("%+v", got)
	}
	f := s.first()
	if f == nil || f.Why != "2 places lost: the rows were closed, and nobody has let go since 11:51:00" || !strings.Contains(f.Then, "a restart") {
		t.Errorf("%+v", f)
	}
}
