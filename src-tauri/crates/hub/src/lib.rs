//! What stands in for Supabase where there is none: Postgres, REST, Realtime, Auth
