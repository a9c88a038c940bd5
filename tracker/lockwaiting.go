package tracker

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// LockWaiting is an operation that has waited 100 ms for a lock and waits on.
type LockWaiting struct {
	Pool         string `json:"pool"`
	ConnectionID string `json:"connection_id"`
	// Site is the call that waits, as "dir/file.go:line", For how long by now, in
	// seconds.
	Site  string  `json:"site"`
	For   float64 `json:"for"`
	Query string  `json:"query,omitempty"`
	// Holder and HolderSite are as in LockWaits, but of now where it has waited 1 s and is
	// the first that does so for its file. HolderConnection is the connection of a
	// transaction, rows or connection, Exempt the reason given to Exempt for it.
	Holder           string `json:"holder"`
	HolderSite       string `json:"holder_site,omitempty"`
	HolderConnection string `json:"holder_connection,omitempty"`
	HolderQuery      string `json:"holder_query,omitempty"`
	Exempt           string `json:"exempt,omitempty"`

	by lockPlace
}

// WaitsLong is how long an operation waits for a lock before the verdict says so.
const WaitsLong = time.Second

const (
	maxLockWaiting = 20
	// maxAsked bounds the files of which it is asked who holds the lock, in one Stats.
	maxAsked = 4
)

// lockWaiting returns those of the long waits that go on at this moment. No lock is
// held: connections are asked what they hold.
func (t *Tracker) lockWaiting(going []*longWait) (all []LockWaiting) {
	asked := make(map[string]lockHolder)
	for _, w := range going {
		if !w.conn.awaitsLock() {
			continue // it has the lock, and is at work
		}
		took, by := w.wait.Took(), w.by
		if took >= WaitsLong {
			now, known := asked[w.file]
			if !known && len(asked) < maxAsked {
				now, _ = w.conn.whoHolds(w.text())
				asked[w.file], known = now, true
			}
			if known {
				by = now
			}
		}
		all = append(all, LockWaiting{
			Pool: w.conn.pool.name, ConnectionID: w.conn.id, Site: Stack(w.at.PCs()).Site().String(), For: seconds(took), Query: w.query,
			Holder: by.String(), HolderSite: by.site(), HolderConnection: by.held.ConnectionID, HolderQuery: by.query, Exempt: by.held.Exempt,
			by: by.place,
		})
	}
	return all
}

// text returns the query as it runs.
func (w *longWait) text() string {
	w.conn.lock()
	defer w.conn.unlock()
	return w.conn.query
}

// maxWaitFindings bounds the findings about waits.
const maxWaitFindings = 5

// judgeWaits says who waits long, and for whom.
func judgeWaits(waiting []LockWaiting, find func(Verdict, string)) {
	type group struct {
		first LockWaiting // the longest
		n     int
		v     Verdict
	}
	var groups []*group
	for _, w := range waiting {
		if w.For < WaitsLong.Seconds() {
			continue
		}
		i := slices.IndexFunc(groups, func(g *group) bool {
			return g.first.Holder == w.Holder && g.first.HolderSite == w.HolderSite && g.first.HolderConnection == w.HolderConnection
		})
		if i >= 0 {
			groups[i].n++
			continue
		}
		g := &group{first: w, n: 1, v: Attention}
		if (w.by == heldByGuarded || w.by == heldPastGuard) && w.Exempt == "" {
			g.v = Bad
		}
		groups = append(groups, g)
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(b.v, a.v) })
	for i, g := range groups {
		if i == maxWaitFindings {
			find(g.v, fmt.Sprintf("and operations that wait for locks of %d more", len(groups)-i))
			return
		}
		find(g.v, g.first.finding(g.n))
	}
}

// finding says it of n operations of which w has waited longest.
func (w *LockWaiting) finding(n int) string {
	took := round(time.Duration(w.For * float64(time.Second)))
	text := fmt.Sprintf("an operation at %s has waited %v for a lock", w.Site, took)
	if n > 1 {
		text = fmt.Sprintf("%d operations wait for a lock, the longest for %v at %s", n, took, w.Site)
	}
	switch {
	case w.by == heldByGuarded && w.Exempt != "":
		return fmt.Sprintf("%s held by a %s of %s, opened at %s, which is exempt: %s", text, w.noun(), w.HolderConnection, w.HolderSite, w.Exempt)
	case w.by == heldByGuarded:
		return fmt.Sprintf("%s held by a %s of %s, opened at %s", text, w.noun(), w.HolderConnection, w.HolderSite)
	case w.by == heldNotKnown:
		return text + ", it is not known whose"
	}
	return text + " held by " + w.Holder
}

func (w *LockWaiting) noun() string {
	if w.Holder == KindRows.String() {
		return "result set"
	}
	return w.Holder
}
