package dataplane

import "context"

// RunWithState is Run with the unit's own state in states.
func RunWithState(ctx context.Context, cfg Config, states interface {
	ReadJSON(name string, v any) (bool, error)
	WriteJSON(name string, v any) error
}) error {
	return run(ctx, cfg, states)
}
