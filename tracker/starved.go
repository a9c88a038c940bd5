package tracker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Starved says that a pool served nobody for a while, and who has its places. It holds
// no SQL text.
type Starved struct {
	Pool string
	// Since is when somebody got a place for the last time, or the pool became full;
	// For is how long that was when it was found.
	Since time.Time
	For   time.Duration
	// Max, InUse, Lost and Lent are as in Places.
	Max, InUse, Lost, Lent int
	// Waiting counts the goroutines that wait for a place of any sql.DB of the
	// process: which one, a goroutine profile does not say. Waiters has their calls,
	// the most frequent first, at most 32. Both are from one profile, which is taken
	// at most once a minute and not where there are more than 20000 goroutines; else
	// WaitersUnknown is true.
	Waiting        int
	Waiters        []Waiter
	WaitersUnknown bool
	// Places is who has the places, causes before victims: first who keeps what others
	// wait for, at most 64. More counts those left out.
	Places []PlaceHolder
	More   int
}

// Waiter is a call that waits for a place.
type Waiter struct {
	Count int
	Stack Stack

	frames []Frame
}

// Site returns the call that waits.
func (w Waiter) Site() Frame { return w.Stack.Site() }

// Doing says what the holder of a place does.
type Doing string

const (
	// DoingNothing is DoingLost for a lease of which nothing was undone: no operation
	// of it is running.
	DoingNothing Doing = "idle"
	// DoingLost: what the lease held was undone, and its holder has not let go.
	DoingLost Doing = "undone, not let go"
	// DoingRunning: an operation is inside SQLite.
	DoingRunning Doing = "running"
	// DoingAwaitsLock: it waits inside SQLite for a lock.
	DoingAwaitsLock Doing = "waiting for a lock"
	// DoingAwaitsPlace: a goroutine that came by the same calls waits for a place: most
	// likely the holder itself, for another one of the same pool.
	DoingAwaitsPlace Doing = "waiting for another place"
)

// PlaceHolder is a lease that has a place of a starved pool.
type PlaceHolder struct {
	ConnectionID string
	// Kind is the most that it holds: a transaction, else rows, else the lease alone,
	// which began at OpenedAt, Age ago. Idle is the time since it did something, short
	// by up to one look, 0 while an operation runs.
	Kind      Kind
	OpenedAt  time.Time
	Age, Idle time.Duration
	// AgeAtLeast is as in Held.
	AgeAtLeast bool
	Doing      Doing
	// Lock is the connection whose lock it waits for, LockSite the call by which that
	// holds it; empty if it waits for none, or for another process.
	Lock     string
	LockSite Frame
	// InTheWay counts the holders of places that wait for a lock of this one.
	InTheWay int
	// Exempt is the reason given to Exempt.
	Exempt string
	// Stack is the call that opened it, empty if call sites are off.
	Stack Stack
}

// Site returns the call that opened it.
func (h PlaceHolder) Site() Frame { return h.Stack.Site() }

// rank puts causes before victims.
func (h PlaceHolder) rank() int {
	switch {
	case h.Doing == DoingLost:
		return 0
	case h.InTheWay > 0 && h.Doing != DoingAwaitsLock:
		return 1
	case h.Doing == DoingNothing:
		return 2
	case h.Doing == DoingAwaitsPlace:
		return 3
	case h.Doing == DoingRunning:
		return 4
	}
	return 5
}

func (s *Starved) sort() {
	slices.SortStableFunc(s.Places, func(a, b PlaceHolder) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.InTheWay, a.InTheWay),
			cmp.Compare(b.Age, a.Age), strings.Compare(a.ConnectionID, b.ConnectionID))
	})
	if n := len(s.Places) - maxPlaceHolders; n > 0 {
		s.Places, s.More = s.Places[:maxPlaceHolders], n
	}
}

const (
	maxPlaceHolders = 64
	maxWaiters      = 32
)

// String returns it as one line, the holders grouped by what they do and where:
//
//	pool db: all 2 places taken, nobody served for 1.2s, 3 waiting (3 at shop/list.go:9); 2 undone, not let go, oldest for 6m1s from shop/report.go:31
func (s Starved) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pool %s: all %s taken", s.Pool, many(s.Max+s.Lent, "place"))
	if s.Lent > 0 {
		fmt.Fprintf(&b, " (%d lent)", s.Lent)
	}
	fmt.Fprintf(&b, ", nobody served for %v", round(s.For))
	if !s.WaitersUnknown {
		fmt.Fprintf(&b, ", %d waiting (%s)", s.Waiting, s.waitersText(3))
	}
	for i, line := range s.groups() {
		if i == 4 {
			b.WriteString("; and others")
			break
		}
		b.WriteString("; ")
		b.WriteString(line)
	}
	return b.String()
}

// attrs are for the log.
func (s *Starved) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.Duration("age", s.For), slog.Int("limit", s.Max), slog.Int("lent", s.Lent), slog.Int("lost", s.Lost)}
	if !s.WaitersUnknown {
		attrs = append(attrs, slog.Int("waiting", s.Waiting))
	}
	if len(s.Places) > 0 {
		attrs = append(attrs, slog.String("doing", string(s.Places[0].Doing)), slog.String("site", s.Places[0].Site().String()))
	}
	return attrs
}

// waitersText names the first few calls that wait.
func (s *Starved) waitersText(most int) string {
	var all []string
	for i, w := range s.Waiters {
		if i == most {
			all = append(all, "and others")
			break
		}
		all = append(all, fmt.Sprintf("%d at %s", w.Count, w.Site()))
	}
	return strings.Join(all, ", ")
}

// groups words the holders, those of one site that do the same together.
func (s *Starved) groups() (lines []string) {
	type key struct {
		doing Doing
		site  Frame
		lock  Frame
	}
	count := make(map[key]int)
	var order []PlaceHolder
	of := func(h PlaceHolder) key { return key{h.Doing, h.Site(), h.LockSite} }
	for _, h := range s.Places {
		if count[of(h)]++; count[of(h)] == 1 {
			order = append(order, h)
		}
	}
	for _, h := range order {
		n := count[of(h)]
		line := fmt.Sprintf("%d %s, ", n, h.Doing)
		if n > 1 {
			line += "oldest "
		}
		line += fmt.Sprintf("for %v from %s", AgeText(h.Age, h.AgeAtLeast), h.Site())
		if h.Lock != "" {
			line += fmt.Sprintf(", held by %s from %s", h.Lock, h.LockSite)
		}
		if h.InTheWay > 0 {
			line += fmt.Sprintf(", with a lock that %d of them wait for", h.InTheWay)
		}
		lines = append(lines, line)
	}
	return lines
}

// MarshalJSON spells durations in seconds and calls as "dir/file.go:line".
func (s Starved) MarshalJSON() ([]byte, error) {
	type waiter struct {
		Count    int    `json:"count"`
		Site     string `json:"site"`
		Function string `json:"function"`
	}
	type holder struct {
		ConnectionID string    `json:"connection_id"`
		Kind         Kind      `json:"kind"`
		OpenedAt     time.Time `json:"opened_at"`
		Age          float64   `json:"age"`
		AgeAtLeast   bool      `json:"age_at_least,omitempty"`
		Idle         float64   `json:"idle"`
		Doing        Doing     `json:"doing"`
		Lock         string    `json:"lock,omitempty"`
		LockSite     string    `json:"lock_site,omitempty"`
		InTheWay     int       `json:"in_the_way,omitempty"`
		Exempt       string    `json:"exempt,omitempty"`
		Site         string    `json:"site"`
		Function     string    `json:"function"`
	}
	out := struct {
		Pool           string    `json:"pool"`
		Since          time.Time `json:"since"`
		For            float64   `json:"for"`
		Max            int       `json:"max"`
		InUse          int       `json:"in_use"`
		Lost           int       `json:"lost"`
		Lent           int       `json:"lent"`
		Waiting        int       `json:"waiting"`
		Waiters        []waiter  `json:"waiters"`
		WaitersUnknown bool      `json:"waiters_unknown,omitempty"`
		Places         []holder  `json:"places"`
		More           int       `json:"more,omitempty"`
	}{s.Pool, s.Since, seconds(s.For), s.Max, s.InUse, s.Lost, s.Lent, s.Waiting, []waiter{}, s.WaitersUnknown, []holder{}, s.More}
	for _, w := range s.Waiters {
		f := w.Site()
		out.Waiters = append(out.Waiters, waiter{w.Count, f.String(), f.Function})
	}
	for _, h := range s.Places {
		f := h.Site()
		one := holder{h.ConnectionID, h.Kind, h.OpenedAt, seconds(h.Age), h.AgeAtLeast, seconds(h.Idle), h.Doing, h.Lock, "", h.InTheWay, h.Exempt, f.String(), f.Function}
		if h.Lock != "" {
			one.LockSite = h.LockSite.String()
		}
		out.Places = append(out.Places, one)
	}
	return json.Marshal(out)
}
