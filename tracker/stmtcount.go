package tracker

import "github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"

// A program that prepares a statement for each request and closes none leaks
// slowly: each statement is legitimate by itself. They are counted for each SQL
// text, and for each line that prepares them, for texts often differ only in
// the values that somebody wrote into them.

// counted is what the last count was about: as long as it stays, so does the count.
type counted struct {
	word  uint64 // the generation
	n     int    // statements
	limit int64
}

// countStatements reports a SQL text, or a line, of which too much is open on a
// connection. It counts when something can have changed: a connection may have
// thousands of statements, and a suspect is looked at in each check.
func (c *Conn) countStatements(f *findings, p *Policy, rec *Record, word uint64) {
	if p.MaxStatements == 0 || int64(c.stmts.n) < p.MaxStatements {
		c.forgive(f)
		c.seen.counted = nil
		return
	}
	now := counted{word, c.stmts.n, p.MaxStatements}
	if c.seen.counted != nil && *c.seen.counted == now {
		return
	}
	c.seen.counted = &now
	most, onePlace := c.mostStatements(rec)
	if !tooManyStatements(p, rec) {
		c.forgive(f)
		return
	}
	if told := c.seen.most; told != nil {
		// The same leak, as it is now: what was told of it before stays as it was.
		l := *told
		l.Count, l.OnePlace = int64(rec.statements), onePlace
		l.Resource, l.Query, l.Stack, l.OpenedAt = most.id, c.told(most.query), most.stack.PCs(), c.pool.tracker.clock.at(most.opened)
		c.seen.most = &l
		return
	}
	l := c.leakLocked(most, ReasonMaxStatements, 0, c.pool.tracker.now(), 0)
	l.Count, l.OnePlace = int64(rec.statements), onePlace
	l.Kept = "a statement may be in use: close it in the program"
	c.seen.most = l
	c.pool.count(func(n *counters) { n.leaked.Add(1) })
	f.news = append(f.news, news{conn: c, typ: EventSuspect, leak: l})
}

// mostStatements counts by text and by place, notes the higher count in the record,
// and returns the oldest statement of those.
func (c *Conn) mostStatements(rec *Record) (most *Resource, onePlace bool) {
	texts := make(map[string]int)
	stacks := make(map[*callstack.Stack]int)
	var text string
	var stack *callstack.Stack // of so many in a row: a leak is likely to be of one
	row := 0
	for r := c.stmts.head; r != nil; r = r.next {
		if texts[r.query]++; texts[r.query] > texts[text] {
			text = r.query
		}
		if r.stack != stack {
			stacks[stack] += row
			stack, row = r.stack, 0
		}
		row++
	}
	stacks[stack] += row
	delete(stacks, nil) // without call sites
	places := make(map[place]int)
	for s, n := range stacks {
		places[placeOf(s)] += n
	}
	delete(places, place{})
	var at place
	for p, n := range places {
		if n > places[at] || n == places[at] && p.before(at) {
			at = p
		}
	}
	rec.statements = max(texts[text], places[at])
	if rec.statements == texts[text] {
		return c.preparedMost(text), false
	}
	for r := c.stmts.head; r != nil; r = r.next {
		if placeOf(r.stack) == at {
			most = r
		}
	}
	return most, true
}

// preparedMost returns a statement of the place that prepared the text most
// often.
func (c *Conn) preparedMost(query string) (most *Resource) {
	count := make(map[*callstack.Stack]int)
	for r := c.stmts.head; r != nil; r = r.next {
		if r.query != query {
			continue
		}
		count[r.stack]++
		if most == nil || count[r.stack] > count[most.stack] {
			most = r
		}
	}
	return most
}

// forgive takes the suspicion of too many statements back.
func (c *Conn) forgive(f *findings) {
	if c.seen.most != nil {
		f.news = append(f.news, news{conn: c, typ: EventRecovered, leak: c.seen.most})
		c.seen.most = nil
	}
}
