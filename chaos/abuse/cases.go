package abuse

import (
	"context"
	"errors"
	"sync"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// attacks lists all cases, in the order in which they run.
func attacks() []attack {
	var list []attack
	for _, part := range [][]attack{beforeLogin(), duringLogin(), inSession(), inOrder(), withCommands(), withTags(), withData(), withTasks(), floods(), heavy()} {
		list = append(list, part...)
	}
	return list
}

// dialled is a case with one connection that has not logged in.
func dialled(name string, f func(c *client)) attack {
	return attack{name: name, run: func(ctx context.Context, r *rig) error { return on(r.prey.dial(ctx), f) }}
}

// loggedIn is a case with one session.
func loggedIn(name string, f func(c *client)) attack {
	return attack{name: name, run: func(ctx context.Context, r *rig) error { return on(r.prey.dial(ctx).login(wishes()), f) }}
}

// on has f use a connection, and closes it.
func on(c *client, f func(c *client)) error {
	defer c.close()
	if c.err == nil {
		f(c)
	}
	return c.err
}

// each opens a connection for each of a number of variants.
func each[T any](name string, open func(ctx context.Context, r *rig) *client, variants []T, f func(c *client, v T)) attack {
	return attack{name: name, run: func(ctx context.Context, r *rig) error {
		for _, v := range variants {
			if err := on(open(ctx, r), func(c *client) { f(c, v) }); err != nil {
				return err
			}
		}
		return nil
	}}
}

func fresh(ctx context.Context, r *rig) *client   { return r.prey.dial(ctx) }
func session(ctx context.Context, r *rig) *client { return r.prey.dial(ctx).login(wishes()) }

// many runs f n times at once, each with its number, and returns all errors.
func many(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = f(i) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// numbered gives a session's initiator port a number of its own.
func (c *client) numbered(i int) *client {
	c.isid = pdu.ISID{0x80, 7, 0, byte(i >> 16), byte(i >> 8), byte(i)}
	return c
}

// bare is a header of 48 bytes that are what they are.
type bare pdu.BHS

// Op is the opcode among the bytes.
func (b *bare) Op() pdu.Opcode { return (*pdu.BHS)(b).Opcode() }

// Encode copies the bytes.
func (b *bare) Encode(to *pdu.BHS) { *to = pdu.BHS(*b) }

// Decode copies the bytes.
func (b *bare) Decode(from *pdu.BHS) { *b = bare(*from) }
