package tracker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// WriteTo writes a report for a person: what is wrong; the pools with their modes,
// limits and places, and who has them if one starves; which places are lost; the open
// suspects grouped by the call that opened them, those that do most harm first (see
// Tracker.Suspects), each group with what it keeps others from, what follows, what to do
// and its stack; what rests and is no leak yet; what is exempt; then the leaks in the
// history that were undone or came back, and what was done; then whose locks made
// operations fail, and who waited long for one; then the open connections, one line
// each; then the counters. Long lists are cut, and say so. It is plain text without
// escape codes.
//
// The parts are read one after the other, so a leak that is undone meanwhile
// may be missing or show up twice. SQL texts are shortened, and otherwise shown
// as they are. A w that is nil is an error.
func (t *Tracker) WriteTo(w io.Writer) (int64, error) {
	if w == nil {
		return 0, errors.New("tracker: WriteTo: w is nil")
	}
	r := report{
		now: t.clock.at(t.now()), stats: t.Stats(), connections: t.lines(), blamed: t.Blamed(),
		pools: t.Pools(), figures: t.Figures().Pools, waiting: t.Waiting(), resting: t.Resting(),
	}
	all, lost := t.suspects()
	for _, s := range all {
		if s.Exempt == "" {
			r.suspects = append(r.suspects, s)
		} else {
			r.exempt = append(r.exempt, s)
		}
	}
	r.read(t.LeakHistory(), lost)
	r.write()
	var out bytes.Buffer
	for l := range bytes.Lines(r.Bytes()) {
		out.Write(bytes.TrimRight(l, " \n"))
		out.WriteByte('\n')
	}
	return out.WriteTo(w)
}

// report is one report while it is made.
type report struct {
	bytes.Buffer
	now         time.Time
	stats       Stats
	pools       []*Pool
	figures     []PoolFigures
	waiting     []LockWaiter // for a lock
	suspects    []Suspect    // that are not exempt
	resting     []Suspect
	exempt      []Suspect
	settled     []settled
	connections []connLine
	blamed      []BlameCount
}

// settled is a leak that is over.
type settled struct {
	leak    *Leak
	at      time.Time
	outcome string
}

// connLine is one open connection. covered says that what its lease held was
// undone and that the holder has not let go.
type connLine struct {
	Record
	covered bool
}

// lines returns the open connections as Stats sorts them.
func (t *Tracker) lines() []connLine {
	t.mu.Lock()
	now := t.now()
	out := make([]connLine, 0, len(t.conns))
	for _, c := range t.conns {
		l := connLine{Record: c.report(now)}
		c.lock()
		w := &c.lease.watch
		l.covered = c.leased && (c.reaped || w.id == c.lease.id && w.taken && w.leak == nil)
		c.unlock()
		out = append(out, l)
	}
	t.mu.Unlock()
	slices.SortStableFunc(out, func(a, b connLine) int {
		return cmp.Or(byLease(a.Record, b.Record), strings.Compare(a.ConnectionID, b.ConnectionID))
	})
	return out
}

// read takes from the history what is over. The suspicion of a lost connection is not.
func (r *report) read(history []Event, lost []string) {
	index := make(map[uint64]int)
	for _, e := range history {
		s := settled{leak: e.Leak, at: e.Time}
		switch {
		case e.Type == EventReaped:
			s.outcome = undone(e.Leak.Kind)
		case e.Type == EventRecovered:
			s.outcome = "came back by itself"
		case e.Leak.Reason != ReasonPanic:
			continue
		case slices.Contains(lost, e.ConnectionID):
			continue
		default:
			s.outcome = "given up"
		}
		if i, ok := index[s.leak.ID]; ok {
			r.settled[i] = s
			continue
		}
		index[s.leak.ID] = len(r.settled)
		r.settled = append(r.settled, s)
	}
}

// undone words what the guard does to a kind of resource.
func undone(k Kind) string {
	if k == KindTransaction {
		return "rolled back"
	}
	return "closed"
}

func (r *report) write() {
	s := &r.stats
	fmt.Fprintf(r, "leakguard report, %s\n", r.now.Format("2006-01-02 15:04:05"))
	fmt.Fprintf(r, "%s (%d leased, %d idle), %s, %s, %s\n",
		many(s.TotalConnections, "open connection"), s.ActiveConnections, s.PoolSize,
		many(s.OpenTransactions, "transaction"), many(s.OpenRows, "result set"), many(s.OpenStatements, "statement"))
	if len(s.Missing) > 0 {
		fmt.Fprintf(r, "missing here: %s\n", printable(strings.Join(s.Missing, ", ")))
	}
	for _, i := range s.Environment {
		if i.Error != "" {
			fmt.Fprintf(r, "ignored in the environment variable LEAKGUARD: %s: %s\n", printable(i.Text), printable(i.Error))
		} else {
			fmt.Fprintf(r, "set by the environment variable LEAKGUARD: %s\n", printable(i.Text))
		}
	}
	for _, finding := range s.Findings {
		fmt.Fprintf(r, "%v: %s\n", s.Verdict, printable(finding))
	}
	r.writePools()
	r.writeSuspects()
	r.writeGroups("at rest, no leak yet", r.resting)
	r.writeGroups("exempt: reported, never undone", r.exempt)
	r.writeSettled()
	r.writeBlamed()
	r.writeLockWaits()
	r.writeConnections()
	r.writeCounters()
}

// siteKey is what leaks are grouped by.
type siteKey struct {
	frame  Frame
	kind   Kind
	reason Reason
}

func siteOf(l *Leak) siteKey { return siteKey{l.Site(), l.Kind, l.Reason} }

// grouped returns the leaks by site, the largest group first and in each the
// oldest leak first.
func grouped[T any](all []T, leak func(T) *Leak) [][]T {
	groups := make(map[siteKey][]T)
	for _, one := range all {
		key := siteOf(leak(one))
		groups[key] = append(groups[key], one)
	}
	out := make([][]T, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g, func(a, b T) int { return byAge(leak(a), leak(b)) })
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b []T) int {
		return cmp.Or(len(b)-len(a), byAge(leak(a[0]), leak(b[0])))
	})
	return out
}

func byAge(a, b *Leak) int {
	return cmp.Or(a.OpenedAt.Compare(b.OpenedAt), cmp.Compare(a.ID, b.ID))
}

// detail writes one labelled line, none if there is nothing to say.
func (r *report) detail(label, text string) {
	if text != "" {
		fmt.Fprintf(r, "      %-10s  %s\n", label, printable(text))
	}
}

func ageText(d time.Duration) string { return AgeText(d, false) }

// limitText names the reason and what it was measured against.
func limitText(l *Leak) string {
	switch {
	case l.Limit > 0:
		return fmt.Sprintf("%s (limit %v)", printable(string(l.Reason)), l.Limit)
	case l.Reason == ReasonWALLimit:
		return fmt.Sprintf("%s (WAL of %s, limit %s)", l.Reason, bytesText(l.Bytes), bytesText(l.LimitBytes))
	case l.Bytes > 0:
		return fmt.Sprintf("%s (%s, limit %s)", printable(string(l.Reason)), bytesText(l.Bytes), bytesText(l.LimitBytes))
	case l.OnePlace:
		return fmt.Sprintf("%s (%d open from one place)", l.Reason, l.Count)
	case l.Count > 0:
		return fmt.Sprintf("%s (open %d times)", l.Reason, l.Count)
	}
	return printable(string(l.Reason))
}

// userFrames are the frames of a stack without the guard's own at the top and
// the runtime's at the bottom.
func userFrames(s Stack) []Frame {
	frames := s.Frames()
	for len(frames) > 0 && internalFrame(frames[0]) {
		frames = frames[1:]
	}
	for len(frames) > 0 && strings.HasPrefix(frames[len(frames)-1].Function, "runtime.") {
		frames = frames[:len(frames)-1]
	}
	return frames
}

func (r *report) writeSettled() {
	found := r.stats.LeakedDetected
	if len(r.settled) == 0 {
		if found > uint64(len(r.suspects)+len(r.exempt)) {
			fmt.Fprintf(r, "\n%s in all; the history does not reach back to those that are over\n", many(found, "leak"))
		}
		return
	}
	fmt.Fprintf(r, "\n%s in the history (%s found in all)\n\n", many(len(r.settled), "leak that is over", "leaks that are over"), many(found, "leak"))
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	for _, g := range grouped(r.settled, func(s settled) *Leak { return s.leak }) {
		var names []string
		count := make(map[string]int)
		var last time.Time
		for _, s := range g {
			if count[s.outcome]++; count[s.outcome] == 1 {
				names = append(names, s.outcome)
			}
			if s.at.After(last) {
				last = s.at
			}
		}
		for i, name := range names {
			if len(g) > 1 {
				names[i] = fmt.Sprintf("%d %s", count[name], name)
			}
		}
		l := g[0].leak
		fmt.Fprintf(tw, "  %d x %s\tat %s\t%s\t%s\tlast %s\t%s\n", len(g), l.Kind, printable(l.Stack.at()),
			limitText(l), strings.Join(names, ", "), last.Format("15:04:05"), printable(shorten(l.Query, 60)))
	}
	tw.Flush()
}

// What keeps the report short.
const (
	maxBlamedLines     = 10
	maxConnectionLines = 200
	maxGroups          = 50
	maxPoolLines       = 50
	maxLostLines       = 20
)

// writeBlamed lists the places that kept others waiting, those that did so most
// often first.
func (r *report) writeBlamed() {
	if len(r.blamed) == 0 {
		return
	}
	type place struct {
		frame Frame
		kind  Kind
	}
	var groups []BlameCount // sorted, and in each the last query
	index := make(map[place]int)
	var all uint64
	for _, n := range r.blamed {
		all += n.Count
		key := place{n.Site(), n.Kind}
		i, ok := index[key]
		if !ok {
			index[key] = len(groups)
			groups = append(groups, n)
			continue
		}
		g := &groups[i]
		g.Count += n.Count
		if n.Last.After(g.Last) {
			g.Last, g.Query = n.Last, n.Query
		}
	}
	slices.SortStableFunc(groups, func(a, b BlameCount) int { return cmp.Compare(b.Count, a.Count) })
	fmt.Fprintf(r, "\nwho kept others waiting: %s, at %s\n\n", many(all, "time"), many(len(groups), "site"))
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	for i, g := range groups {
		if i == maxBlamedLines && len(groups) > maxBlamedLines+1 {
			fmt.Fprintf(tw, "  and %d more\n", len(groups)-i)
			break
		}
		fmt.Fprintf(tw, "  %d x %s\tat %s\tlast %s\t%s\n", g.Count, g.Kind, printable(g.Stack.at()),
			g.Last.Format("15:04:05"), printable(shorten(g.Query, 60)))
	}
	tw.Flush()
}

// writeLockWaits lists the waits that took long, those that took longest in all first.
func (r *report) writeLockWaits() {
	s := &r.stats
	if s.LockWaitCount == 0 {
		return
	}
	fmt.Fprintf(r, "\nwaits for locks of %v and more that are over: %d, together %s\n\n", LockWaitAfter, s.LockWaitCount, secondsText(s.LockWaitSeconds))
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	for i, n := range s.LockWaits {
		if i == maxBlamedLines && len(s.LockWaits) > maxBlamedLines+1 {
			fmt.Fprintf(tw, "  and %d more\n", len(s.LockWaits)-i)
			break
		}
		holder := n.Holder
		if n.HolderSite != "" {
			holder += " opened at " + n.HolderSite
		}
		fmt.Fprintf(tw, "  %d x at %s\tfor %s\tlongest %s\ttogether %s\tlast %s\t%s\n", n.Count, printable(n.WaiterSite), printable(holder),
			secondsText(n.Longest), secondsText(n.Total), n.Last.Format("15:04:05"), printable(shorten(n.Query, 60)))
	}
	tw.Flush()
}

func secondsText(s float64) string { return ageText(time.Duration(s * float64(time.Second))) }

func (r *report) writeConnections() {
	if len(r.connections) == 0 {
		r.WriteString("\nno open connections\n")
		return
	}
	fmt.Fprintf(r, "\n%s\n\n", many(len(r.connections), "open connection"))
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  connection\tstate\tage\tidle\tlevel\ttx age\taccesses\tsite\tquery")
	covered := false
	for i, c := range r.connections {
		if i == maxConnectionLines && len(r.connections) > maxConnectionLines+1 {
			fmt.Fprintf(tw, "  and %d more\n", len(r.connections)-i)
			break
		}
		state, txAge, site := c.State(), "-", "-"
		if c.covered {
			state, covered = state+"*", true
		}
		if c.TransactionLevel > 0 {
			txAge = ageText(c.TxAge)
		}
		if len(c.Stack) > 0 {
			site = c.Stack.at()
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\n", printable(c.ConnectionID), state, ageText(c.Age), ageText(c.Idle),
			c.TransactionLevel, txAge, c.Accesses, printable(site), printable(shorten(c.Query, 60)))
	}
	tw.Flush()
	if covered {
		r.WriteString("  * what the lease held was undone; the pool gets the slot back when the holder lets go\n")
	}
}

// writeCounters uses the names of the JSON form, so that both can be compared.
func (r *report) writeCounters() {
	s := &r.stats
	r.WriteString("\ncounters\n\n")
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	for _, row := range [][]struct {
		name  string
		value uint64
	}{
		{{"leaked_detected", s.LeakedDetected}, {"proven", s.Proven}, {"recovered", s.Recovered}, {"reaped", s.Reaped}},
		{{"created", s.Created}, {"reused", s.Reused}, {"expired", s.Expired}, {"recycled", s.Recycled}, {"refreshed", s.Refreshed}},
		{{"force_closed", s.ForceClosed}, {"aggressive_cleanups", s.AggressiveCleanups}, {"events_dropped", s.EventsDropped}, {"callback_panics", s.CallbackPanics}},
		{{"blocked", s.Blocked}, {"lost", uint64(s.Lost)}},
	} {
		for _, c := range row {
			fmt.Fprintf(tw, "  %s\t%d\t", c.name, c.value)
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// many counts a noun: "1 leak", "2 leaks".
func many[N int | uint64](n N, one string, more ...string) string {
	word := one
	if n != 1 {
		word += "s"
		if len(more) > 0 {
			word = more[0]
		}
	}
	return fmt.Sprintf("%d %s", n, word)
}

// printable takes out what a terminal or the layout could take for an order: names,
// reasons and queries are other people's text.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}
