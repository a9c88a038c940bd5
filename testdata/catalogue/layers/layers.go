// Package layers is a program's own, though its path begins like that of a
// library which is skipped. Only the catalogue of leaks imports it.
package layers

import (
	"context"
	"database/sql"
)

// Begin begins a transaction.
func Begin(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	return db.BeginTx(ctx, nil) // leak:transaction for LayerOfAnotherName
}
