package tracker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// linesOf counts what h was given, by message, and adds up what was held back.
func (h *records) linesOf(message string) (lines, told int) {
	for _, line := range strings.Split(h.take(), "\n") {
		if !strings.Contains(line, " "+message+" ") {
			continue
		}
		lines++
		told++
		if _, more, ok := strings.Cut(line, " more="); ok {
			n := 0
			fmt.Sscan(more, &n)
			told += n - 1 // the line itself is the last of those
		}
	}
	return lines, told
}

// known returns how many sites are remembered, waits whether the timer is armed.
func (l *logLines) known() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sites)
}

func (l *logLines) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.armed
}

// A line that leaks again and again gets a line of log a minute, and how many more
// there were.
func TestLogOfAHotLeak(t *testing.T) {
	inBubble(t, func(l *lab) {
		h := &records{level: slog.LevelInfo}
		p := newPool(t, l.Tracker, PoolConfig{Name: "db", Logger: slog.New(h), Policy: limits(nil)})
		f := l.open(p, true)
		const leaks = 3000
		for range leaks {
			r := f.query("SELECT 1", "")
			f.do(func() { f.Proven(r, true) })
			l.sleep(40 * time.Millisecond) // for two minutes
		}
		synctest.Wait()
		time.Sleep(2 * logInterval)
		synctest.Wait()
		lines, told := h.linesOf("leak found")
		if told != leaks {
			t.Errorf("%d leaks are told, want %d", told, leaks)
		}
		if lines > 5 {
			t.Errorf("%d lines for one site in four minutes", lines)
		}
		if n := p.Stats().Proven; n != leaks {
			t.Errorf("%d in Stats, want %d", n, leaks)
		}
	})
}

// Other sites, and other messages, have lines of their own.
func TestLogOfManySites(t *testing.T) {
	inBubble(t, func(l *lab) {
		var lines logLines
		lines.tracker = l.Tracker
		logger := slog.New(&records{})
		p := newPool(t, l.Tracker, PoolConfig{Name: "db", Logger: logger})
		event := func(site int, typ EventType) Event {
			// Sites are told apart by place; without stacks by kind.
			return Event{Type: typ, Leak: &Leak{Kind: Kind(site)}, pool: p}
		}
		held := 0
		for range 100 {
			for site := range 3 {
				for _, typ := range []EventType{EventSuspect, EventReaped} {
					if lines.hold(event(site, typ), logger) {
						held++
					}
				}
			}
		}
		if held != 100*6-6 {
			t.Errorf("%d of 600 are held back, want all but 6", held)
		}
		if n := lines.known(); n != 6 {
			t.Errorf("%d sites are remembered", n)
		}
		time.Sleep(3 * logInterval)
		synctest.Wait()
		if n := lines.known(); n != 0 && lines.waits() {
			t.Errorf("%d sites are remembered, and the timer is armed", n)
		}
	})
}

// Sites are bounded: beyond that they share a line for each message.
func TestLogSitesAreBounded(t *testing.T) {
	inBubble(t, func(l *lab) {
		var lines logLines
		lines.tracker = l.Tracker
		for range 3 * maxLogSites {
			logger := slog.New(&records{}) // each its own site
			lines.hold(Event{Type: EventReaped, Leak: &Leak{}, pool: &Pool{tracker: l.Tracker, logger: logger}}, logger)
		}
		if n := lines.known(); n != maxLogSites+1 {
			t.Errorf("%d sites are remembered, want %d and one for all others", n, maxLogSites)
		}
		time.Sleep(3 * logInterval)
		synctest.Wait()
		logger := slog.New(&records{})
		lines.hold(Event{Type: EventReaped, Leak: &Leak{}, pool: &Pool{tracker: l.Tracker, logger: logger}}, logger)
		if n := lines.known(); n > 2 {
			t.Errorf("%d sites are remembered after minutes of silence", n)
		}
	})
}

// A panic in a callback is logged with its value and where it came from; one of the
// logger itself is not logged again.
func TestPanicIsLogged(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		tr.queue.contain(func() { panicsHere() })
		if text := log.String(); !strings.Contains(text, "panic=\"own fault\"") || !strings.Contains(text, "panicsHere") || !strings.Contains(text, "level=ERROR") {
			t.Errorf("logged %q", text)
		}
		for range 100 {
			tr.queue.contain(func() { panicsHere() })
		}
		if n := strings.Count(log.String(), "callback panicked"); n != 1 {
			t.Errorf("%d lines for 101 panics, want 1", n)
		}
		time.Sleep(logInterval)
		slog.SetDefault(slog.New(&records{onLine: func() { panic("the logger's") }}))
		tr.queue.contain(func() { panicsHere() })
		if n := tr.Stats().CallbackPanics; n != 102 {
			t.Errorf("%d panics counted, want 102", n)
		}
	})
}

func panicsHere() { panic("own fault") }

// A leak given to slog is a group.
func TestLeakLogValue(t *testing.T) {
	var log bytes.Buffer
	l := Leak{Kind: KindRows, Pool: "db", ConnectionID: "db#1", Reason: ReasonLeakAfter, Age: time.Minute, Limit: time.Second, Query: "SELECT ?"}
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "leak", l)
	for _, want := range []string{"leak.pool=db", "leak.kind=rows", "leak.site=unknown", "leak.age=1m0s", "leak.limit=1s", `leak.cure="defer rows.Close() at this line"`, `leak.query="SELECT ?"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log.String())
		}
	}
}
