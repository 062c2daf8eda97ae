package extent

import "sync"

// syncer shares one fdatasync among all who ask for it while another is running, and
// remembers a failure for good.
type syncer struct {
	do func() error

	mu      sync.Mutex
	running bool
	next    *syncBatch // those who came while one was running
	failed  error
	count   uint64
}

// syncBatch is a sync that has not begun.
type syncBatch struct {
	lead chan struct{} // gives one of the waiters the work
	done chan struct{}
	err  error
}

// sync returns once a sync that began after the call has ended.
func (s *syncer) sync() error {
	s.mu.Lock()
	if s.failed != nil {
		defer s.mu.Unlock()
		return s.failed
	}
	if !s.running {
		s.running = true
		s.mu.Unlock()
		return s.run(nil)
	}
	if s.next == nil {
		s.next = &syncBatch{lead: make(chan struct{}, 1), done: make(chan struct{})}
	}
	b := s.next
	s.mu.Unlock()
	select {
	case <-b.done:
		return b.err
	case <-b.lead:
		return s.run(b)
	}
}

// run does the work for batch b (nil: for the caller alone) and hands on to the next.
func (s *syncer) run(b *syncBatch) error {
	s.mu.Lock()
	if b != nil {
		s.next = nil // who comes from here on may be too late for this one
	}
	err := s.failed
	s.mu.Unlock()
	if err == nil {
		err = s.do()
	}
	s.mu.Lock()
	s.count++
	if err != nil && s.failed == nil {
		s.failed = err
	}
	if s.next != nil {
		s.next.lead <- struct{}{}
	} else {
		s.running = false
	}
	s.mu.Unlock()
	if b != nil {
		b.err = err
		close(b.done)
	}
	return err
}

// err returns the failure, if there was one.
func (s *syncer) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
