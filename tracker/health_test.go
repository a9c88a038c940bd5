package tracker

import (
	"strings"
	"testing"
	"time"
)

// From rest to loss and back: the verdict, what it says, and what is told.
func TestVerdict(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ReportAfter, p.LeakAfter = 30*sec, 5*mins }))
		expect := func(want Verdict, findings ...string) {
			t.Helper()
			s := l.Stats()
			if s.Verdict != want || len(s.Findings) != len(findings) {
				t.Fatalf("at %v: %v %q, want %v and %d findings", l.since(), s.Verdict, s.Findings, want, len(findings))
			}
			for i, part := range findings {
				if !strings.Contains(s.Findings[i], part) {
					t.Errorf("finding %q, want %s in it", s.Findings[i], part)
				}
			}
		}
		var fakes []*fake
		for range 3 {
			fakes = append(fakes, l.open(p, true))
		}
		other := l.open(p, true)
		expect(Good)
		for _, f := range fakes {
			f.begin("BEGIN", "")
		}
		other.begin("BEGIN", "nightly import") // exempt: it accuses nobody
		l.until(20 * sec)
		expect(Good)
		l.until(40 * sec)
		expect(Attention, "3 places of pool db are taken by leases that rest, opened at tracker/fake_test.go:")
		fakes[0].touch()
		fakes[1].touch()
		expect(Good) // one of four rests
		l.until(7 * mins)
		s := l.Stats()
		if s.Verdict != Bad || s.Lost == 0 || len(s.LostPlaces) != s.Lost || s.LostPlaces[0].Undone == "" || !strings.Contains(s.LostPlaces[0].Site, "fake_test.go") {
			t.Errorf("%v, lost %d: %+v", s.Verdict, s.Lost, s.LostPlaces)
		}
		l.until(15 * mins)
		expect(Bad, "3 places of pool db are lost: what their leases held was undone, opened at tracker/fake_test.go:")
		var counts []int
		for _, e := range l.History() {
			if e.Type == EventLost {
				counts = append(counts, e.Places.Lost)
			}
		}
		if len(counts) == 0 || counts[len(counts)-1] != 3 {
			t.Errorf("told of %v lost places", counts)
		}
		told := len(counts)
		for _, f := range fakes {
			f.commit()
			f.in()
		}
		l.sleep(time.Minute)
		counts = nil
		for _, e := range l.History() {
			if e.Type == EventLost {
				counts = append(counts, e.Places.Lost)
			}
		}
		if len(counts) <= told || counts[len(counts)-1] != 0 {
			t.Errorf("told of %v lost places, want none in the end", counts)
		}
		expect(Good)
		other.commit()
	})
}

func TestVerdictText(t *testing.T) {
	for _, v := range []Verdict{Good, Attention, Bad} {
		text, err := v.MarshalText()
		var back Verdict
		if err != nil || back.UnmarshalText(text) != nil || back != v {
			t.Errorf("%v: %s, %v", v, text, err)
		}
	}
	var v Verdict
	if _, err := Verdict(9).MarshalText(); err == nil || v.UnmarshalText([]byte("fine")) == nil || Verdict(9).String() != "Verdict(9)" {
		t.Error("an unknown verdict is no error")
	}
}

// Thousands of lost places are counted, and some of them described.
func TestLostPlacesAreBounded(t *testing.T) {
	records := make([]Record, 3*maxLostPlaces)
	for i := range records {
		records[i] = Record{Pool: "db", Leased: true, Lost: true, LostSince: time.Unix(int64(len(records)-i), 0)}
	}
	var s Stats
	s.judge(records, nil, nil, time.Time{})
	if len(s.LostPlaces) != maxLostPlaces || s.LostPlaces[0].Since != time.Unix(1, 0) {
		t.Errorf("%d are described, the first since %v", len(s.LostPlaces), s.LostPlaces[0].Since)
	}
	if len(s.Findings) != 1 || !strings.HasPrefix(s.Findings[0], "300 places of pool db are lost") {
		t.Errorf("%q", s.Findings)
	}
}
