package tracker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is how things stand, in a word.
type Verdict uint8

const (
	// Good: nothing is known that somebody would have to do.
	Good Verdict = iota
	// Attention: in some pool leases that rest have more than half of the places, so
	// that soon there may be none left; or an operation has waited 1 s for a lock that
	// an exempt holder, another process, or nobody known has.
	Attention
	// Bad: a place of a pool is lost, a pool is starved, something is forgotten, or an
	// operation has waited 1 s for a lock that somebody in this process holds who is not
	// exempt. That may be a queue behind work that goes on: whoever looks sees who
	// waits, and for whom. Waits for a place are known of attached pools only, where
	// they are starvation: sql.DB does not say who waits now.
	Bad
)

var verdictNames = [...]string{Good: "good", Attention: "attention", Bad: "bad"}

// String returns "good", "attention" or "bad".
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// MarshalText spells the verdict as String does.
func (v Verdict) MarshalText() ([]byte, error) {
	if int(v) >= len(verdictNames) {
		return nil, fmt.Errorf("unknown verdict %d", uint8(v))
	}
	return []byte(verdictNames[v]), nil
}

// UnmarshalText accepts "good", "attention" and "bad".
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if string(text) == name {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("unknown verdict %q: want good, attention or bad", text)
}

// LostPlace is a place of a pool whose lease was undone and whose holder has not let go.
type LostPlace struct {
	Pool         string    `json:"pool"`
	ConnectionID string    `json:"connection_id"`
	Since        time.Time `json:"since"`
	// Undone is what was undone first, Closed whether the SQLite handle is closed.
	Undone string `json:"undone"`
	Closed bool   `json:"closed"`
	// Site is the call that took the lease, as far as it is known.
	Site string `json:"site"`
}

// maxLostPlaces bounds LostPlaces.
const maxLostPlaces = 100

// judge fills in what is lost, and the verdict. crowds are the sites with too many pools.
func (s *Stats) judge(records []Record, crowds map[string]int, waiting []LockWaiting, now time.Time) {
	pools := make(map[string]*poolHealth)
	forgotten := make(map[string]int)
	for i := range records {
		r := &records[i]
		p := pools[r.Pool]
		if p == nil {
			p = &poolHealth{name: r.Pool, lost: make(map[string]int), resting: make(map[string]int)}
			pools[r.Pool] = p
		}
		p.places++
		switch { // a site is looked up for those alone of whom something is said
		case r.Lost:
			site := r.Stack.Site().String()
			p.lost[site]++
			s.LostPlaces = append(s.LostPlaces, LostPlace{r.Pool, r.ConnectionID, r.LostSince, undoneText(r.Undone), r.Reaped, site})
		case r.Resting && r.Exempt == "":
			p.resting[r.Stack.Site().String()]++
		}
		if r.accused {
			forgotten[r.forgot.Site().String()]++
		}
	}
	slices.SortFunc(s.LostPlaces, func(a, b LostPlace) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ConnectionID, b.ConnectionID))
	})
	if len(s.LostPlaces) > maxLostPlaces {
		s.LostPlaces = s.LostPlaces[:maxLostPlaces]
	}
	all := make([]*poolHealth, 0, len(pools))
	for _, p := range pools {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *poolHealth) int { return cmp.Compare(a.name, b.name) })
	var found [len(verdictNames)][]string
	find := func(v Verdict, text string) {
		s.Verdict = max(s.Verdict, v)
		found[v] = append(found[v], text)
	}
	defer func() {
		s.Findings = append(found[Bad], found[Attention]...)
	}()
	for _, n := range s.Places {
		if n.Starved != nil {
			find(Bad, fmt.Sprintf("pool %s is starved: nobody has got a place for %s", n.Pool, ageText(now.Sub(n.Starved.Since))))
		}
		if p := pools[n.Pool]; p != nil && n.Max > 0 {
			p.places, p.known = n.Max, true
		}
	}
	for _, p := range all {
		if n := total(p.lost); n > 0 {
			find(Bad, fmt.Sprintf("%s lost: what their leases held was undone, opened at %s; they come back when the holders let go", p.of(n), sitesText(p.lost)))
		}
	}
	judgeWaits(waiting, find)
	if n := total(forgotten); n > 0 {
		find(Bad, fmt.Sprintf("something is forgotten on %s, opened at %s", many(n, "connection"), sitesText(forgotten)))
	}
	if n := total(crowds); n > 0 {
		find(Bad, fmt.Sprintf("too many pools are opened and not closed, at %s", sitesText(crowds)))
	}
	for _, p := range all {
		if n := total(p.resting); 2*n > p.places {
			find(Attention, fmt.Sprintf("%s taken by leases that rest, opened at %s", p.of(n), sitesText(p.resting)))
		}
	}
}

// poolHealth is what judge sees of one pool. Sites are with how many leases each has.
type poolHealth struct {
	name          string
	places        int  // without a known limit the open connections
	known         bool // the limit
	lost, resting map[string]int
}

// of words so many of the pool's places: "3 of 8 places of pool db are".
func (p *poolHealth) of(n int) string {
	be := "are"
	if n == 1 {
		be = "is"
	}
	if p.known {
		return fmt.Sprintf("%d of %d places of pool %s %s", n, p.places, p.name, be)
	}
	return fmt.Sprintf("%s of pool %s %s", many(n, "place"), p.name, be)
}

func total[K comparable](sites map[K]int) (n int) {
	for _, one := range sites {
		n += one
	}
	return n
}

// sitesText lists the sites with most leases.
func sitesText(sites map[string]int) string {
	var all []string
	for site := range sites {
		all = append(all, site)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(sites[b], sites[a]), cmp.Compare(a, b)) })
	var b strings.Builder
	for i, site := range all {
		if i == 3 {
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(site)
		if n := sites[site]; n > 1 {
			fmt.Fprintf(&b, " (%d)", n)
		}
	}
	return b.String()
}

// undoneText words what was undone first.
func undoneText(k Kind) string {
	switch k {
	case KindTransaction:
		return "transaction rolled back"
	case KindRows:
		return "rows closed"
	}
	return "connection closed"
}
