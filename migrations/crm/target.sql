-- The CRM's tables as an object-relational mapper would make them: names as in the source, uuid keys, enumerations, `set null` where a
-- reference may be empty, `restrict` where it may not, `cascade` around junction tables and from a task to its comments.
--
-- `organisations.owner_id` and "Users".organisation_id are both NOT NULL and nothing is deferrable: neither row can be first.

create type "ActiveStatus" as enum ('ACTIVE', 'INACTIVE', 'PENDING');
create type "Language" as enum ('cz', 'en', 'de', 'uk');
create type "OrganisationPlan" as enum ('FREE', 'TEAM', 'COMPANY');
create type "crm_Lead_Status" as enum ('NEW', 'CONTACTED', 'QUALIFIED', 'LOST');
create type "crm_Lead_Type" as enum ('DEMO');
create type "crm_Opportunity_Status" as enum ('ACTIVE', 'INACTIVE', 'PENDING', 'CLOSED');
create type "crm_Contact_Type" as enum ('Customer', 'Partner', 'Vendor', 'Prospect');
create type "crm_Contracts_Status" as enum ('NOTSTARTED', 'INPROGRESS', 'SIGNED');
create type "DocumentSystemType" as enum ('INVOICE', 'RECEIPT', 'CONTRACT', 'OFFER', 'OTHER');
create type "taskStatus" as enum ('ACTIVE', 'PENDING', 'COMPLETE');
create type "gptStatus" as enum ('ACTIVE', 'INACTIVE');

create table organisations (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    slug text not null,
    owner_id uuid not null,
    parent_id uuid,
    plan "OrganisationPlan",
    "createdAt" timestamptz
);

create table "Users" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    account_name text,
    avatar text,
    email text not null,
    is_account_admin boolean not null default false,
    is_admin boolean not null default false,
    created_on timestamptz not null default current_timestamp,
    "lastLoginAt" timestamptz,
    name text,
    password text,
    username text,
    "userStatus" "ActiveStatus" not null default 'PENDING',
    "userLanguage" "Language" not null default 'en',
    organisation_id uuid not null,
    reports_to uuid
);

create table "crm_Industry_Type" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null
);

create table "crm_Accounts" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    "createdAt" timestamptz not null default current_timestamp,
    "createdBy" uuid,
    "updatedAt" timestamptz,
    "updatedBy" uuid,
    annual_revenue numeric(14, 2),
    assigned_to uuid,
    billing_city text,
    billing_country text,
    billing_postal_code text,
    company_id text,
    description text,
    email text,
    employees bigint,
    fax text,
    industry uuid,
    member_of uuid,
    name text not null,
    office_phone text,
    shipping_city text,
    shipping_country text,
    status text,
    "type" text,
    vat text,
    website text
);

create table "crm_Leads" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    "createdAt" timestamptz,
    "createdBy" uuid,
    "updatedAt" timestamptz,
    "firstName" text,
    "lastName" text not null,
    company text,
    "jobTitle" text,
    email text,
    phone text,
    description text,
    lead_source text,
    refered_by text,
    campaign text,
    status "crm_Lead_Status",
    "type" "crm_Lead_Type" not null default 'DEMO',
    assigned_to uuid,
    "accountsIDs" uuid
);

create table crm_campaigns (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    description text,
    status text
);

create table "crm_Opportunities_Sales_Stages" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    probability bigint,
    "order" bigint
);

create table "crm_Opportunities_Type" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    "order" bigint
);

create table "crm_Contacts" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    account text,
    assigned_to uuid,
    birthday date,
    created_by uuid,
    created_on timestamptz,
    last_activity timestamptz,
    last_activity_by uuid,
    description text,
    email text,
    personal_email text,
    first_name text,
    last_name text not null,
    office_phone text,
    mobile_phone text,
    website text,
    "position" text,
    status boolean not null default true,
    social_linkedin text,
    social_skype text,
    "type" "crm_Contact_Type" default 'Customer',
    tags text[],
    notes text[],
    "accountsIDs" uuid
);

create table "crm_Opportunities" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    account uuid,
    assigned_to uuid,
    budget bigint not null default 0,
    campaign uuid,
    close_date timestamptz,
    contact uuid,
    created_by uuid,
    "createdAt" timestamptz not null default current_timestamp,
    last_activity timestamptz,
    "updatedAt" timestamptz,
    currency text,
    description text,
    expected_revenue bigint not null default 0,
    name text,
    next_step text,
    sales_stage uuid,
    "type" uuid,
    status "crm_Opportunity_Status" default 'ACTIVE'
);

create table "crm_Contracts" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    title text not null,
    value numeric(14, 2),
    "startDate" timestamptz,
    "endDate" timestamptz,
    "customerSignedDate" date,
    "companySignedDate" date,
    description text,
    account uuid,
    assigned_to uuid,
    "createdAt" timestamptz,
    "createdBy" uuid,
    status "crm_Contracts_Status" not null default 'NOTSTARTED',
    "type" text
);

create table "Boards" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    description text not null,
    favourite boolean,
    "favouritePosition" bigint,
    icon text,
    "position" bigint,
    title text not null,
    "user" uuid not null,
    visibility text,
    "sharedWith" text[],
    "createdAt" timestamptz,
    "createdBy" uuid,
    "updatedAt" timestamptz
);

create table "Sections" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    board uuid not null,
    title text not null,
    "position" bigint
);

create table "Tasks" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    content text,
    "createdAt" timestamptz,
    "createdBy" uuid,
    "updatedAt" timestamptz,
    "dueDateAt" timestamptz,
    "lastEditedAt" timestamptz,
    "position" bigint not null default 0,
    priority text not null,
    section uuid,
    tags jsonb,
    title text not null,
    likes bigint,
    "user" uuid,
    parent uuid,
    "taskStatus" "taskStatus" default 'ACTIVE'
);

create table "crm_Accounts_Tasks" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    content text,
    "createdAt" timestamptz,
    "createdBy" uuid,
    "dueDateAt" timestamptz,
    priority text not null,
    tags jsonb,
    title text not null,
    likes bigint,
    "user" uuid,
    account uuid,
    "taskStatus" "taskStatus" not null default 'ACTIVE'
);

create table "tasksComments" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    comment text not null,
    "createdAt" timestamptz not null default current_timestamp,
    task uuid not null,
    "user" uuid not null,
    assigned_crm_account_task uuid
);

create table "invoice_States" (
    id uuid primary key default gen_random_uuid(),
    name text not null
);

create table "Invoices" (
    id uuid primary key default gen_random_uuid(),
    v bigint,
    date_created timestamptz not null default current_timestamp,
    last_updated timestamptz not null default current_timestamp,
    last_updated_by uuid,
    date_received timestamptz,
    date_tax date,
    date_due date,
    description text,
    document_type text,
    favorite boolean,
    variable_symbol text,
    invoice_number text,
    invoice_amount numeric(14, 2),
    "invoice_file_mimeType" text not null,
    invoice_file_url text not null,
    invoice_items jsonb,
    invoice_type text,
    invoice_currency text,
    partner text,
    partner_email text,
    "partner_VAT_number" text,
    partner_is_person boolean,
    rossum_status text,
    status text,
    invoice_state_id uuid,
    assigned_user_id uuid,
    assigned_account_id uuid,
    visibility boolean not null default true
);

create table "Documents_Types" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null
);

create table "Documents" (
    id uuid primary key default gen_random_uuid(),
    v bigint,
    date_created timestamptz,
    "createdAt" timestamptz,
    last_updated timestamptz,
    document_name text not null,
    created_by_user uuid,
    "createdBy" uuid,
    description text,
    document_type uuid,
    favourite boolean,
    "document_file_mimeType" text not null,
    document_file_url text not null,
    status text,
    visibility text,
    tags jsonb,
    key text,
    "size" bigint,
    assigned_user uuid,
    connected_documents text[],
    document_system_type "DocumentSystemType" not null default 'OTHER'
);

create table "modulStatus" (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    "isVisible" boolean not null default false
);

create table "system_Modules_Enabled" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    enabled boolean not null default false,
    "position" bigint not null default 0
);

create table "systemServices" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    name text not null,
    "serviceUrl" text,
    "serviceId" text,
    "serviceKey" text,
    "servicePassword" text,
    "servicePort" text,
    description text
);

create table "MyAccount" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    company_name text not null,
    is_person boolean not null default false,
    email text,
    email_accountant text,
    phone text,
    website text,
    street text,
    city text,
    zip text,
    country text,
    currency text,
    "VAT_number" text not null,
    "TAX_number" text,
    bank_name text,
    "bank_IBAN" text,
    "bank_SWIFT" text
);

create table "secondBrain_notions" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    "user" uuid not null,
    notion_api_key text not null,
    notion_db_id text not null
);

create table "openAi_keys" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    "user" uuid not null,
    organization_id text not null,
    api_key text not null
);

create table "Employees" (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    avatar text not null,
    email text,
    name text not null,
    salary bigint not null default 0,
    status text not null
);

create table "ImageUpload" (
    id uuid primary key default gen_random_uuid()
);

create table "TodoList" (
    id uuid primary key default gen_random_uuid(),
    "createdAt" timestamptz,
    description text not null,
    title text not null,
    url text not null,
    "user" text not null
);

create table gpt_models (
    id uuid primary key default gen_random_uuid(),
    v integer not null default 0,
    model text not null,
    description text,
    status "gptStatus",
    created_on timestamptz
);

-- Junction tables.
create table "DocumentsToInvoices" (document_id uuid not null, invoice_id uuid not null, primary key (document_id, invoice_id));
create table "DocumentsToOpportunities" (document_id uuid not null, opportunity_id uuid not null, primary key (document_id, opportunity_id));
create table "DocumentsToContacts" (document_id uuid not null, contact_id uuid not null, primary key (document_id, contact_id));
create table "DocumentsToTasks" (document_id uuid not null, task_id uuid not null, primary key (document_id, task_id));
create table "DocumentsToCrmAccountsTasks" (document_id uuid not null, crm_accounts_task_id uuid not null, primary key (document_id, crm_accounts_task_id));
create table "DocumentsToLeads" (document_id uuid not null, lead_id uuid not null, primary key (document_id, lead_id));
create table "DocumentsToAccounts" (document_id uuid not null, account_id uuid not null, primary key (document_id, account_id));
create table "ContactsToOpportunities" (contact_id uuid not null, opportunity_id uuid not null, primary key (contact_id, opportunity_id));
create table "AccountWatchers" (account_id uuid not null, user_id uuid not null, primary key (account_id, user_id));
create table "BoardWatchers" (board_id uuid not null, user_id uuid not null, primary key (board_id, user_id));

create unique index "Users_email_key" on "Users" (email);
create unique index organisations_slug_key on organisations (slug);

alter table organisations add constraint "organisations_owner_id_fkey"
    foreign key (owner_id) references "Users" on delete restrict on update cascade;
alter table organisations add constraint "organisations_parent_id_fkey"
    foreign key (parent_id) references organisations on delete set null on update cascade;
alter table "Users" add constraint "Users_organisation_id_fkey"
    foreign key (organisation_id) references organisations on delete restrict on update cascade;
alter table "Users" add constraint "Users_reports_to_fkey"
    foreign key (reports_to) references "Users" on delete set null on update cascade;
alter table "crm_Accounts" add constraint "crm_Accounts_assigned_to_fkey"
    foreign key (assigned_to) references "Users" on delete set null on update cascade;
alter table "crm_Accounts" add constraint "crm_Accounts_industry_fkey"
    foreign key (industry) references "crm_Industry_Type" on delete set null on update cascade;
alter table "crm_Accounts" add constraint "crm_Accounts_member_of_fkey"
    foreign key (member_of) references "crm_Accounts" on delete set null on update cascade;
alter table "crm_Leads" add constraint "crm_Leads_assigned_to_fkey"
    foreign key (assigned_to) references "Users" on delete set null on update cascade;
alter table "crm_Leads" add constraint "crm_Leads_accountsIDs_fkey"
    foreign key ("accountsIDs") references "crm_Accounts" on delete set null on update cascade;
alter table "crm_Contacts" add constraint "crm_Contacts_assigned_to_fkey"
    foreign key (assigned_to) references "Users" on delete set null on update cascade;
alter table "crm_Contacts" add constraint "crm_Contacts_created_by_fkey"
    foreign key (created_by) references "Users" on delete set null on update cascade;
alter table "crm_Contacts" add constraint "crm_Contacts_accountsIDs_fkey"
    foreign key ("accountsIDs") references "crm_Accounts" on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_account_fkey"
    foreign key (account) references "crm_Accounts" on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_assigned_to_fkey"
    foreign key (assigned_to) references "Users" on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_campaign_fkey"
    foreign key (campaign) references crm_campaigns on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_created_by_fkey"
    foreign key (created_by) references "Users" on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_sales_stage_fkey"
    foreign key (sales_stage) references "crm_Opportunities_Sales_Stages" on delete set null on update cascade;
alter table "crm_Opportunities" add constraint "crm_Opportunities_type_fkey"
    foreign key ("type") references "crm_Opportunities_Type" on delete set null on update cascade;
alter table "crm_Contracts" add constraint "crm_Contracts_account_fkey"
    foreign key (account) references "crm_Accounts" on delete set null on update cascade;
alter table "crm_Contracts" add constraint "crm_Contracts_assigned_to_fkey"
    foreign key (assigned_to) references "Users" on delete set null on update cascade;
alter table "Boards" add constraint "Boards_user_fkey"
    foreign key ("user") references "Users" on delete restrict on update cascade;
alter table "Sections" add constraint "Sections_board_fkey"
    foreign key (board) references "Boards" on delete restrict on update cascade;
alter table "Tasks" add constraint "Tasks_section_fkey"
    foreign key (section) references "Sections" on delete set null on update cascade;
alter table "Tasks" add constraint "Tasks_user_fkey"
    foreign key ("user") references "Users" on delete set null on update cascade;
alter table "Tasks" add constraint "Tasks_parent_fkey"
    foreign key (parent) references "Tasks" on delete set null on update cascade;
alter table "crm_Accounts_Tasks" add constraint "crm_Accounts_Tasks_user_fkey"
    foreign key ("user") references "Users" on delete set null on update cascade;
alter table "crm_Accounts_Tasks" add constraint "crm_Accounts_Tasks_account_fkey"
    foreign key (account) references "crm_Accounts" on delete set null on update cascade;
alter table "tasksComments" add constraint "tasksComments_task_fkey"
    foreign key (task) references "Tasks" on delete cascade on update cascade;
alter table "tasksComments" add constraint "tasksComments_user_fkey"
    foreign key ("user") references "Users" on delete restrict on update cascade;
alter table "tasksComments" add constraint "tasksComments_assigned_crm_account_task_fkey"
    foreign key (assigned_crm_account_task) references "crm_Accounts_Tasks" on delete set null on update cascade;
alter table "Invoices" add constraint "Invoices_invoice_state_id_fkey"
    foreign key (invoice_state_id) references "invoice_States" on delete set null on update cascade;
alter table "Invoices" add constraint "Invoices_assigned_user_id_fkey"
    foreign key (assigned_user_id) references "Users" on delete set null on update cascade;
alter table "Invoices" add constraint "Invoices_assigned_account_id_fkey"
    foreign key (assigned_account_id) references "crm_Accounts" on delete set null on update cascade;
alter table "Documents" add constraint "Documents_created_by_user_fkey"
    foreign key (created_by_user) references "Users" on delete set null on update cascade;
alter table "Documents" add constraint "Documents_document_type_fkey"
    foreign key (document_type) references "Documents_Types" on delete set null on update cascade;
alter table "Documents" add constraint "Documents_assigned_user_fkey"
    foreign key (assigned_user) references "Users" on delete set null on update cascade;
alter table "secondBrain_notions" add constraint "secondBrain_notions_user_fkey"
    foreign key ("user") references "Users" on delete restrict on update cascade;
alter table "openAi_keys" add constraint "openAi_keys_user_fkey"
    foreign key ("user") references "Users" on delete restrict on update cascade;
alter table "DocumentsToInvoices" add constraint "DocumentsToInvoices_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToInvoices" add constraint "DocumentsToInvoices_invoice_id_fkey"
    foreign key (invoice_id) references "Invoices" on delete cascade on update cascade;
alter table "DocumentsToOpportunities" add constraint "DocumentsToOpportunities_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToOpportunities" add constraint "DocumentsToOpportunities_opportunity_id_fkey"
    foreign key (opportunity_id) references "crm_Opportunities" on delete cascade on update cascade;
alter table "DocumentsToContacts" add constraint "DocumentsToContacts_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToContacts" add constraint "DocumentsToContacts_contact_id_fkey"
    foreign key (contact_id) references "crm_Contacts" on delete cascade on update cascade;
alter table "DocumentsToTasks" add constraint "DocumentsToTasks_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToTasks" add constraint "DocumentsToTasks_task_id_fkey"
    foreign key (task_id) references "Tasks" on delete cascade on update cascade;
alter table "DocumentsToCrmAccountsTasks" add constraint "DocumentsToCrmAccountsTasks_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToCrmAccountsTasks" add constraint "DocumentsToCrmAccountsTasks_crm_accounts_task_id_fkey"
    foreign key (crm_accounts_task_id) references "crm_Accounts_Tasks" on delete cascade on update cascade;
alter table "DocumentsToLeads" add constraint "DocumentsToLeads_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToLeads" add constraint "DocumentsToLeads_lead_id_fkey"
    foreign key (lead_id) references "crm_Leads" on delete cascade on update cascade;
alter table "DocumentsToAccounts" add constraint "DocumentsToAccounts_document_id_fkey"
    foreign key (document_id) references "Documents" on delete cascade on update cascade;
alter table "DocumentsToAccounts" add constraint "DocumentsToAccounts_account_id_fkey"
    foreign key (account_id) references "crm_Accounts" on delete cascade on update cascade;
alter table "ContactsToOpportunities" add constraint "ContactsToOpportunities_contact_id_fkey"
    foreign key (contact_id) references "crm_Contacts" on delete cascade on update cascade;
alter table "ContactsToOpportunities" add constraint "ContactsToOpportunities_opportunity_id_fkey"
    foreign key (opportunity_id) references "crm_Opportunities" on delete cascade on update cascade;
alter table "AccountWatchers" add constraint "AccountWatchers_account_id_fkey"
    foreign key (account_id) references "crm_Accounts" on delete cascade on update cascade;
alter table "AccountWatchers" add constraint "AccountWatchers_user_id_fkey"
    foreign key (user_id) references "Users" on delete cascade on update cascade;
alter table "BoardWatchers" add constraint "BoardWatchers_board_id_fkey"
    foreign key (board_id) references "Boards" on delete cascade on update cascade;
alter table "BoardWatchers" add constraint "BoardWatchers_user_id_fkey"
    foreign key (user_id) references "Users" on delete cascade on update cascade;

create index on organisations (owner_id);
create index on organisations (parent_id);
create index on "Users" (organisation_id);
create index on "Users" (reports_to);
create index on "crm_Accounts" (assigned_to);
create index on "crm_Accounts" (industry);
create index on "crm_Accounts" (member_of);
create index on "crm_Leads" (assigned_to);
create index on "crm_Leads" ("accountsIDs");
create index on "crm_Contacts" (assigned_to);
create index on "crm_Contacts" (created_by);
create index on "crm_Contacts" ("accountsIDs");
create index on "crm_Opportunities" (account);
create index on "crm_Opportunities" (assigned_to);
create index on "crm_Opportunities" (campaign);
create index on "crm_Opportunities" (created_by);
create index on "crm_Opportunities" (sales_stage);
create index on "crm_Opportunities" ("type");
create index on "crm_Contracts" (account);
create index on "crm_Contracts" (assigned_to);
create index on "Boards" ("user");
create index on "Sections" (board);
create index on "Tasks" (section);
create index on "Tasks" ("user");
create index on "Tasks" (parent);
create index on "crm_Accounts_Tasks" ("user");
create index on "crm_Accounts_Tasks" (account);
create index on "tasksComments" (task);
create index on "tasksComments" ("user");
create index on "tasksComments" (assigned_crm_account_task);
create index on "Invoices" (invoice_state_id);
create index on "Invoices" (assigned_user_id);
create index on "Invoices" (assigned_account_id);
create index on "Documents" (created_by_user);
create index on "Documents" (document_type);
create index on "Documents" (assigned_user);
create index on "secondBrain_notions" ("user");
create index on "openAi_keys" ("user");
create index on "DocumentsToInvoices" (invoice_id);
create index on "DocumentsToOpportunities" (opportunity_id);
create index on "DocumentsToContacts" (contact_id);
create index on "DocumentsToTasks" (task_id);
create index on "DocumentsToCrmAccountsTasks" (crm_accounts_task_id);
create index on "DocumentsToLeads" (lead_id);
create index on "DocumentsToAccounts" (account_id);
create index on "ContactsToOpportunities" (opportunity_id);
create index on "AccountWatchers" (user_id);
create index on "BoardWatchers" (user_id);
