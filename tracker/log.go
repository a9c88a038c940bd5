package tracker

import (
	"log/slog"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// What the guard writes to a pool's logger. Messages are constant, so that a log can
// be searched and counted by them; everything else is an attribute, once. A line of
// the program that leaks again and again gets one line of log a minute, and then how
// many more there were.

// logInterval is how often a site is told of with one message.
const logInterval = time.Minute

// maxLogSites bounds the sites that are remembered for that.
const maxLogSites = 1024

// message is what the event's line says, the same for all of its kind; "" for what
// has none of its own.
func (e Event) message() string {
	switch e.Type {
	case EventSuspect, EventProven:
		if e.Leak.Operations > 0 {
			return "leak works on"
		}
		return "leak found"
	case EventResting:
		return "resting"
	case EventReaped:
		return "leak undone"
	case EventRecovered:
		return "leak recovered"
	case EventBlocked:
		return "blocked"
	case EventPressure:
		if !e.Pressure.On {
			return "memory pressure over"
		}
		return "memory pressure"
	case EventDegraded:
		return "memory monitor degraded"
	case EventKept:
		return "connection kept"
	case EventStarved:
		return "starved"
	case EventLost:
		if e.news {
			return "place lost"
		}
		return "place returned"
	case EventLent:
		if e.news {
			return "place lent"
		}
		return "place given back"
	case EventChanged:
		if e.bad {
			return "setting ignored"
		}
		return "setting changed"
	case EventOpened, EventCheckOut, EventCheckIn, EventRecycled, EventRefreshed, EventClosed:
		return "connection " + e.Type.String()
	}
	return e.Type.String()
}

// log writes the event to its pool's logger, or counts it if its site had a line
// lately.
func (e Event) log() {
	var logger *slog.Logger
	if e.pool != nil { // else it is all pools' affair
		logger = e.pool.logger
	}
	level := e.level()
	if logger == nil {
		if level < slog.LevelWarn && e.Type != EventChanged {
			return
		}
		logger = slog.Default()
	}
	if !logger.Enabled(logContext, level) {
		return
	}
	if e.pool != nil && e.pool.tracker.logs.hold(e, logger) {
		return
	}
	logger.LogAttrs(logContext, level, e.message(), e.attrs()...)
}

// attrs are the event's attributes: what a person wants to know comes first.
func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("component", "leakguard")}
	if e.Pool != "" {
		attrs = append(attrs, slog.String("pool", e.Pool))
	}
	switch {
	case e.Leak != nil:
		cure := ""
		if e.Type != EventRecovered {
			cure = e.Leak.Cure()
		}
		if n := len(e.Waiters); n > 0 {
			w := &e.Waiters[0]
			attrs = append(attrs, slog.Int("waiting", n), slog.String("waiter_site", w.Site().String()), slog.String("waiter_query", shorten(w.Query, 80)))
		}
		return append(attrs, e.Leak.attrs(e.outcome(), cure)...)
	case e.Blame != nil:
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
		attrs = append(attrs, e.Blame.attrs()...)
	case e.Pressure != nil:
		attrs = append(attrs, e.Pressure.attrs()...)
	case e.Starved != nil:
		attrs = append(attrs, e.Starved.attrs()...)
	case e.Type == EventLost:
		attrs = append(attrs, slog.Int("lost", e.Places.Lost))
		if e.Places.Max > 0 {
			attrs = append(attrs, slog.Int("of", e.Places.Max))
		}
		if e.sites != "" {
			attrs = append(attrs, slog.String("site", e.sites), slog.String("cure", "the holder has to let go: close what was opened at this line"))
		}
	case e.Places != nil:
		attrs = append(attrs, slog.Int("limit", e.Places.Max), slog.Int("lent", e.Places.Lent))
	case e.Reason != "":
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
	}
	if e.ConnectionID != "" {
		attrs = append(attrs, slog.String("connection", e.ConnectionID))
	}
	return attrs
}

// LogValue makes a leak a group of attributes in a log line: its pool, kind, site and
// age, the limit that it broke, what to do, and what else is known of it.
func (l Leak) LogValue() slog.Value {
	return slog.GroupValue(append([]slog.Attr{slog.String("pool", l.Pool)}, l.attrs("", l.Cure())...)...)
}

func (l *Leak) attrs(outcome, cure string) []slog.Attr {
	at := l.Stack.told()
	attrs := []slog.Attr{
		slog.String("kind", l.Kind.String()),
		slog.String("site", at.site.String()),
	}
	if at.through != "" {
		attrs = append(attrs, slog.String("through", at.through))
	}
	attrs = append(attrs, slog.Duration("age", round(l.Age)), slog.String("reason", string(l.Reason)))
	if l.AgeAtLeast {
		attrs = append(attrs, slog.Bool("age_at_least", true))
	}
	if l.Limit > 0 {
		attrs = append(attrs, slog.Duration("limit", l.Limit))
	}
	if l.LimitBytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", l.Bytes), slog.Int64("limit_bytes", l.LimitBytes))
	}
	if l.Count > 0 {
		attrs = append(attrs, slog.Int64("count", l.Count))
	}
	if l.Operations > 0 {
		attrs = append(attrs, slog.Uint64("operations", l.Operations))
	}
	for _, text := range [...]struct{ key, value string }{
		{"outcome", outcome}, {"cure", cure}, {"query", shorten(l.Query, 200)},
		{"exempt", l.Exempt}, {"kept", l.Kept}, {"connection", l.ConnectionID},
	} {
		if text.value != "" {
			attrs = append(attrs, slog.String(text.key, text.value))
		}
	}
	attrs = append(attrs, slog.Duration("idle", round(l.Idle)), slog.Uint64("leak", l.ID))
	return append(attrs, at.attrs()...)
}

// logFrames is how many frames of a stack a line has.
const logFrames = 3

// told is where a stack was, resolved once for a line.
type told struct {
	site    Frame
	through string
	frames  []Frame // of the whole stack
}

func (s Stack) told() told {
	site, through := s.locate()
	return told{site, framesText(through), s.Frames()}
}

// attrs are the function of the site, and a few frames from there.
func (t told) attrs() []slog.Attr {
	if t.site.Function == "" {
		return nil
	}
	var frames []string
	for _, f := range t.frames {
		if len(frames) == 0 && f != t.site {
			continue
		}
		if frames = append(frames, path.Base(f.Function)+" "+f.String()); len(frames) == logFrames {
			break
		}
	}
	return []slog.Attr{slog.String("function", t.site.Function), slog.String("frames", strings.Join(frames, " < "))}
}

func (b *Blame) attrs() []slog.Attr {
	at := b.Stack.told()
	attrs := []slog.Attr{slog.String("site", at.site.String())}
	if at.through != "" {
		attrs = append(attrs, slog.String("through", at.through))
	}
	if b.Query != "" {
		attrs = append(attrs, slog.String("query", shorten(b.Query, 200)))
	}
	if b.File != "" {
		attrs = append(attrs, slog.String("file", b.File))
	}
	if len(b.Holders) == 0 {
		return append(append(attrs, slog.String("holder", b.nobody())), at.attrs()...)
	}
	h := &b.Holders[0]
	attrs = append(attrs, slog.String("holder", h.String()))
	if h.ConnectionID != "" {
		attrs = append(attrs, slog.String("holder_connection", h.ConnectionID), slog.String("holder_site", h.Site().String()), slog.Duration("holder_age", round(h.Age)))
		if h.AgeAtLeast {
			attrs = append(attrs, slog.Bool("holder_age_at_least", true))
		}
	}
	if n := len(b.Holders); n > 1 {
		attrs = append(attrs, slog.Int("holders", n))
	}
	return append(attrs, at.attrs()...)
}

func (p *Pressure) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.Float64("used_percent", p.UsedPercent), slog.Float64("limit_percent", p.Limit)}
	if p.Stall > 0 {
		attrs = append(attrs, slog.Float64("stall_percent", p.Stall))
	}
	if p.On {
		attrs = append(attrs, slog.Int64("released_bytes", p.Released), slog.Int("closed", p.Closed), slog.Int64("closed_bytes", p.ClosedBytes))
	}
	return attrs
}

// logLines remembers which sites had a line lately.
type logLines struct {
	tracker *Tracker

	mu    sync.Mutex // a leaf
	sites map[logSite]*logLine
	timer *time.Timer // nil until first needed
	armed bool
}

// logSite is what gets one line in an interval.
type logSite struct {
	message string
	kind    Kind
	place   place
	logger  *slog.Logger
}

type logLine struct {
	until  time.Duration // when the next one may be written, on the tracker's clock
	more   int           // held back since the last one
	last   Event         // of those
	logger *slog.Logger  // of the last
}

// hold reports whether the event is held back, for its site had its line: it is
// counted, and told when the interval is over.
func (l *logLines) hold(e Event, logger *slog.Logger) bool {
	if e.Leak == nil && e.Blame == nil {
		return false
	}
	key := logSite{message: e.message(), logger: e.pool.logger}
	if e.Leak != nil {
		site := e.Leak.Site()
		key.kind, key.place = e.Leak.Kind, place{site.File, site.Line}
	} else {
		site := e.Blame.Site()
		key.place = place{site.File, site.Line}
	}
	now := l.tracker.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.sites[key]
	if line == nil {
		if len(l.sites) >= maxLogSites {
			l.forgetLocked(now)
		}
		if len(l.sites) >= maxLogSites {
			key = logSite{message: key.message} // together
			line = l.sites[key]
		}
	}
	if line == nil {
		if l.sites == nil {
			l.sites = make(map[logSite]*logLine)
		}
		line = &logLine{until: now}
		l.sites[key] = line
	}
	if now >= line.until && line.more == 0 {
		line.until = now + logInterval
		return false
	}
	line.more, line.last, line.logger = line.more+1, e, logger
	l.armLocked(line.until - now)
	return true
}

// forgetLocked forgets the sites that are free to write.
func (l *logLines) forgetLocked(now time.Duration) {
	for key, line := range l.sites {
		if line.more == 0 && now >= line.until {
			delete(l.sites, key)
		}
	}
}

// armLocked sees to it that what is held back is told. The caller is on the dispatcher
// or the timer, never in somebody's bubble.
func (l *logLines) armLocked(wait time.Duration) {
	switch {
	case l.armed:
		return
	case l.timer == nil:
		l.timer = time.AfterFunc(wait, l.flush)
	default:
		l.timer.Reset(wait)
	}
	l.armed = true
}

// flush tells how many were held back where the interval is over.
func (l *logLines) flush() {
	now := l.tracker.now()
	var due []logLine
	l.mu.Lock()
	l.armed = false
	soonest := time.Duration(-1)
	for _, line := range l.sites {
		switch {
		case line.more == 0:
			continue
		case now >= line.until:
			due = append(due, *line)
			line.more, line.last, line.until = 0, Event{}, now+logInterval
		case soonest < 0 || line.until-now < soonest:
			soonest = line.until - now
		}
	}
	l.forgetLocked(now)
	if soonest >= 0 {
		l.armLocked(soonest)
	}
	l.mu.Unlock()
	for _, line := range due {
		e := line.last
		l.tracker.queue.contain(func() {
			line.logger.LogAttrs(logContext, e.level(), e.message(), append(e.attrs(), slog.Int("more", line.more))...)
		})
	}
}

// logPanic logs what somebody's callback, detector or logger panicked with, at most
// once in an interval: one that panics for each event would fill the log. All of them
// are counted.
func (q *queue) logPanic(value any) {
	now := q.tracker.now()
	q.mu.Lock()
	if q.logging || q.quietFor > now { // the first: it is the logger itself
		q.mu.Unlock()
		return
	}
	q.logging, q.quietFor = true, now+logInterval
	q.mu.Unlock()
	stack := string(debug.Stack())
	defer func() {
		recover()
		q.mu.Lock()
		q.logging = false
		q.mu.Unlock()
	}()
	slog.Default().LogAttrs(logContext, slog.LevelError, "callback panicked",
		slog.String("component", "leakguard"), slog.Any("panic", value), slog.String("stack", stack))
}
