package tracker

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A lease that nobody saw begin is at least as old as the look that found it, and every
// output says so; what was opened has its own time, which is true.
func TestAgeAtLeast(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, unreported())
		f := l.open(p, true)
		l.sleep(time.Second)
		f.begin("BEGIN", "")
		l.sleep(65 * time.Second)
		for _, h := range l.Held() {
			if h.AgeAtLeast != (h.Kind == KindConnection) {
				t.Errorf("%v: at least: %v", h.Kind, h.AgeAtLeast)
			}
			if h.Kind == KindTransaction && h.Age != 65*time.Second {
				t.Errorf("the transaction is %v old", h.Age)
			}
			text, err := json.Marshal(h)
			if err != nil || strings.Contains(string(text), `"age_at_least":true`) != h.AgeAtLeast {
				t.Errorf("%s, %v", text, err)
			}
			if text := (Holder{Held: h}).String(); strings.Contains(text, "open for ≥ 1m6s)") != h.AgeAtLeast {
				t.Errorf("holder %s", text)
			}
		}
		if d := p.Stats().ActiveConnectionDetails[0]; !d.LeaseAgeAtLeast || d.LeaseAge != 66 {
			t.Errorf("leased for %v, at least: %v", d.LeaseAge, d.LeaseAgeAtLeast)
		}

		// The next lease has its own beginning.
		f.EndTx()
		f.in()
		f.Record()
		f.Conn.CheckOut("")
		f.Recorded()
		f.Conn.lock()
		dated := f.lease.dated
		f.Conn.unlock()
		if dated {
			t.Error("the next lease has the time of a look")
		}
	})
}

// The same words in the text of a leak, the report and the log; and no more digits than
// are known.
func TestAgeIsToldAlike(t *testing.T) {
	l := Leak{Kind: KindConnection, Reason: ReasonLeakAfter, Limit: time.Second, Age: 57743644, AgeAtLeast: true, Idle: 51234567}
	if s := l.String(); !strings.Contains(s, "without activity for 50ms (leak_after 1s, open for ≥ 60ms)") {
		t.Error(s)
	}
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "leak", l)
	if s := b.String(); !strings.Contains(s, "leak.age=60ms ") || !strings.Contains(s, "leak.age_at_least=true ") || !strings.Contains(s, "leak.idle=50ms ") {
		t.Error(s)
	}
	b.Reset()
	l.AgeAtLeast = false
	log.Info("x", "leak", l)
	if s := b.String(); strings.Contains(s, "at_least") {
		t.Error(s)
	}
	l.AgeAtLeast = true
	l.Age = 65 * time.Second
	if s := ages(&l); !strings.HasPrefix(s, "≥ 1m5s, idle for ") {
		t.Error(s)
	}
	for want, got := range map[string]string{
		"1m5s": AgeText(65*time.Second+400*time.Millisecond, false), "≥ 1m5s": AgeText(65*time.Second+400*time.Millisecond, true), "60ms": AgeText(57743644, false),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
