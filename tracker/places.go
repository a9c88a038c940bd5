package tracker

import "fmt"

// Places is what is known of the places of one pool: from sql.DBStats, hence only for a
// pool with a sql.DB that was attached (see Pool.Attach).
type Places struct {
	Pool string `json:"pool"`
	// Max is the program's own limit (sql.DB.SetMaxOpenConns) without what is lent,
	// 0: none.
	Max int `json:"max"`
	// InUse places are taken, by leases and by connections that are being opened, and
	// Idle connections sit in the pool.
	InUse int `json:"in_use"`
	Idle  int `json:"idle"`
	// Lost of those in use are kept by leases whose content the guard undid and whose
	// holder has not let go, Lent are lent for them on top of Max at this moment, and
	// LentTotal counts places lent so far.
	Lost      int    `json:"lost"`
	Lent      int    `json:"lent"`
	LentTotal uint64 `json:"lent_total"`
	// Waits counts how often somebody had to wait for a place, WaitDuration is how
	// long all of them that are over have waited, in seconds. How many wait now
	// database/sql does not tell.
	Waits        int64   `json:"waits"`
	WaitDuration float64 `json:"wait_duration"`
	// StarvedTotal counts how often the pool was found starved, Starved is set while
	// it is. It is shared: read it, do not change it.
	StarvedTotal uint64   `json:"starved_total"`
	Starved      *Starved `json:"starved,omitempty"`
}

// String returns the places as one line:
//
//	pool db: limit 2 and 1 lent, 3 in use (1 lost), 0 idle
func (p Places) String() string {
	limit := "no limit"
	if p.Max > 0 {
		limit = fmt.Sprintf("limit %d", p.Max)
	}
	if p.Lent > 0 {
		limit += fmt.Sprintf(" and %d lent", p.Lent)
	}
	return fmt.Sprintf("pool %s: %s, %d in use (%d lost), %d idle", p.Pool, limit, p.InUse, p.Lost, p.Idle)
}

// attachments returns those of all pools, or of one.
func (t *Tracker) attachments(only *Pool) (all []*attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pools {
		if p.attached != nil && (only == nil || p == only) {
			all = append(all, p.attached)
		}
	}
	return all
}

// capacities asks database/sql. No lock is held: it has locks of its own, under which
// it calls drivers.
func (t *Tracker) capacities(only *Pool) map[*Pool]*Places {
	all := t.attachments(only)
	if len(all) == 0 {
		return nil
	}
	out := make(map[*Pool]*Places, len(all))
	for _, a := range all {
		if n, ok := a.places(); ok {
			out[a.pool] = &n
		}
	}
	return out
}
