package sqlc

// ListUsers is as generated.
func (q *Queries) ListUsers() {
	q.DB.Lease.CheckOut("") // list users
	q.DB.Opened()
}

// GetUser is as generated with emit_prepared_queries.
func (q *Queries) GetUser() { q.query() } // get user
