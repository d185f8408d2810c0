-- The role that the service works as, for a Postgres that starts empty (docs/postgres.md). Migrations grant it what it
-- needs. The password is for development only, as everything else is that compose.yaml sets.
create role tallystick_service login password 'for-development-only';
