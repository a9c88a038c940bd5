// Package sqlc looks like what sqlc generates.
package sqlc

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/db"

// Queries has a method for each query.
type Queries struct{ DB *db.DB }

func (q *Queries) query() {
	q.DB.Lease.CheckOut("") // prepared
	q.DB.Opened()
}

// WithTx is not a query.
func (q *Queries) WithTx() {
	q.DB.Lease.CheckOut("") // with tx
	q.DB.Opened()
}
