-- INSERT OR REPLACE deletes without the triggers on deletions: no event takes the place of another.
CREATE TRIGGER audit_events_are_not_replaced BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events e WHERE e.id = NEW.id OR e.n = NEW.n)
BEGIN
  SELECT RAISE(ABORT, 'audit events never change');
END;
