"""The standard objects of a developer org: their actual fields, types and numbers of rows.

One line per field: its API name, its type, and in parentheses the type's parameters: a length,
precision and scale, the picklist's values, or the objects a reference points to. The `__c` fields
are those that Salesforce itself adds to a new developer org.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from local.sample_org.fields import Field


class Standard(NamedTuple):
    """A standard object without its rows."""

    name: str
    label: str
    label_plural: str
    key_prefix: str
    """First three characters of every record id of the object."""
    rows: int
    fields: str


SYSTEM_FIELDS = """
Id id(18)
IsDeleted boolean
CreatedDate datetime
CreatedById reference(User)
LastModifiedDate datetime
LastModifiedById reference(User)
SystemModstamp datetime
"""

_ADDRESS = """
{0}Street textarea(255)
{0}City string(40)
{0}State string(80)
{0}PostalCode string(20)
{0}Country string(80)
{0}Latitude double(18,15)
{0}Longitude double(18,15)
{0}GeocodeAccuracy picklist(Address|NearAddress|Block|Street|Zip|City|State)
{0}Address address
"""

_INDUSTRIES = (
    "Agriculture|Apparel|Banking|Biotechnology|Chemicals|Communications|Construction|Consulting|"
    "Education|Electronics|Energy|Engineering|Finance|Healthcare|Insurance|Manufacturing|Media|"
    "Retail|Technology|Transportation|Utilities"
)
_SOURCES = "Web|Phone Inquiry|Partner Referral|Purchased List|Other"
_RATINGS = "Hot|Warm|Cold"
_SALUTATIONS = "Mr.|Ms.|Mrs.|Dr.|Prof."

STANDARD_OBJECTS = [
    Standard(
        "Account",
        "Account",
        "Accounts",
        "001",
        200,
        f"""
        MasterRecordId reference(Account)
        Name string(255)
        Type picklist(Prospect|Customer - Direct|Customer - Channel|Technology Partner|Other)
        ParentId reference(Account)
        {_ADDRESS.format("Billing")}
        {_ADDRESS.format("Shipping")}
        Phone phone(40)
        Fax phone(40)
        AccountNumber string(40)
        Website url(255)
        PhotoUrl url(255)
        Sic string(20)
        Industry picklist({_INDUSTRIES})
        AnnualRevenue currency(18,0)
        NumberOfEmployees int(8,0)
        Ownership picklist(Public|Private|Subsidiary|Other)
        TickerSymbol string(20)
        Description textarea(32000)
        Rating picklist({_RATINGS})
        Site string(80)
        OwnerId reference(User)
        LastActivityDate date
        LastViewedDate datetime
        LastReferencedDate datetime
        Jigsaw string(20)
        JigsawCompanyId string(20)
        CleanStatus picklist(Matched|Different|Acknowledged|NotFound|Inactive|Pending)
        AccountSource picklist({_SOURCES})
        DunsNumber string(9)
        Tradestyle string(255)
        NaicsCode string(8)
        NaicsDesc string(120)
        YearStarted string(4)
        SicDesc string(80)
        CustomerPriority__c picklist(High|Low|Medium)
        SLA__c picklist(Gold|Silver|Platinum|Bronze)
        Active__c picklist(No|Yes)
        NumberofLocations__c double(3,0)
        UpsellOpportunity__c picklist(Maybe|No|Yes)
        SLASerialNumber__c string(10)
        SLAExpirationDate__c date
        """,
    ),
    Standard(
        "Contact",
        "Contact",
        "Contacts",
        "003",
        500,
        f"""
        MasterRecordId reference(Contact)
        AccountId reference(Account)
        LastName string(80)
        FirstName string(40)
        Salutation picklist({_SALUTATIONS})
        Name string(121)
        {_ADDRESS.format("Other")}
        {_ADDRESS.format("Mailing")}
        Phone phone(40)
        Fax phone(40)
        MobilePhone phone(40)
        HomePhone phone(40)
        OtherPhone phone(40)
        AssistantPhone phone(40)
        ReportsToId reference(Contact)
        Email email(80)
        Title string(128)
        Department string(80)
        AssistantName string(40)
        LeadSource picklist({_SOURCES})
        Birthdate date
        Description textarea(32000)
        OwnerId reference(User)
        LastActivityDate date
        LastCURequestDate datetime
        LastCUUpdateDate datetime
        LastViewedDate datetime
        LastReferencedDate datetime
        EmailBouncedReason string(255)
        EmailBouncedDate datetime
        IsEmailBounced boolean
        PhotoUrl url(255)
        Jigsaw string(20)
        JigsawContactId string(20)
        CleanStatus picklist(Matched|Different|Acknowledged|NotFound|Inactive|Pending)
        IndividualId reference(Individual)
        Level__c picklist(Secondary|Tertiary|Primary)
        Languages__c string(100)
        """,
    ),
    Standard(
        "Lead",
        "Lead",
        "Leads",
        "00Q",
        300,
        f"""
        MasterRecordId reference(Lead)
        LastName string(80)
        FirstName string(40)
        Salutation picklist({_SALUTATIONS})
        Name string(121)
        Title string(128)
        Company string(255)
        {_ADDRESS.format("")}
        Phone phone(40)
        MobilePhone phone(40)
        Fax phone(40)
        Email email(80)
        Website url(255)
        PhotoUrl url(255)
        Description textarea(32000)
        LeadSource picklist({_SOURCES})
        Status picklist(Open - Not Contacted|Working - Contacted|Closed - Not Converted)
        Industry picklist({_INDUSTRIES})
        Rating picklist({_RATINGS})
        AnnualRevenue currency(18,0)
        NumberOfEmployees int(8,0)
        OwnerId reference(User)
        IsConverted boolean
        ConvertedDate date
        ConvertedAccountId reference(Account)
        ConvertedContactId reference(Contact)
        ConvertedOpportunityId reference(Opportunity)
        IsUnreadByOwner boolean
        LastActivityDate date
        LastViewedDate datetime
        LastReferencedDate datetime
        Jigsaw string(20)
        JigsawContactId string(20)
        CleanStatus picklist(Matched|Different|Acknowledged|NotFound|Inactive|Pending)
        CompanyDunsNumber string(9)
        EmailBouncedReason string(255)
        EmailBouncedDate datetime
        IndividualId reference(Individual)
        SICCode__c string(15)
        ProductInterest__c picklist(GC1000 series|GC5000 series|GC3000 series)
        Primary__c picklist(No|Yes)
        CurrentGenerators__c string(100)
        NumberofLocations__c double(3,0)
        """,
    ),
    Standard(
        "Opportunity",
        "Opportunity",
        "Opportunities",
        "006",
        400,
        f"""
        AccountId reference(Account)
        IsPrivate boolean
        Name string(120)
        Description textarea(32000)
        StageName picklist(Prospecting|Qualification|Proposal|Negotiation|Closed Won|Closed Lost)
        Amount currency(18,2)
        Probability percent(3,0)
        ExpectedRevenue currency(18,2)
        TotalOpportunityQuantity double(18,2)
        CloseDate date
        Type picklist(Existing Customer - Upgrade|Existing Customer - Replacement|New Customer)
        NextStep string(255)
        LeadSource picklist({_SOURCES})
        IsClosed boolean
        IsWon boolean
        ForecastCategory picklist(Omitted|Pipeline|BestCase|Forecast|Closed)
        ForecastCategoryName picklist(Omitted|Pipeline|Best Case|Commit|Closed)
        CampaignId reference(Campaign)
        HasOpportunityLineItem boolean
        Pricebook2Id reference(Pricebook2)
        OwnerId reference(User)
        LastActivityDate date
        PushCount int(9,0)
        LastStageChangeDate datetime
        FiscalQuarter int(9,0)
        FiscalYear int(9,0)
        Fiscal string(6)
        ContactId reference(Contact)
        LastViewedDate datetime
        LastReferencedDate datetime
        HasOpenActivity boolean
        HasOverdueTask boolean
        DeliveryInstallationStatus__c picklist(In progress|Yet to begin|Completed)
        TrackingNumber__c string(12)
        OrderNumber__c string(8)
        CurrentGenerators__c string(100)
        MainCompetitors__c string(100)
        """,
    ),
    Standard(
        "Case",
        "Case",
        "Cases",
        "500",
        250,
        """
        MasterRecordId reference(Case)
        CaseNumber string(30)
        ContactId reference(Contact)
        AccountId reference(Account)
        ParentId reference(Case)
        SuppliedName string(80)
        SuppliedEmail email(80)
        SuppliedPhone string(40)
        SuppliedCompany string(80)
        Type picklist(Mechanical|Electrical|Electronic|Structural|Other)
        Status picklist(New|Working|Escalated|Closed)
        Reason picklist(Installation|Equipment Complexity|Performance|Breakdown|Feedback|Other)
        Origin picklist(Email|Phone|Web)
        Subject string(255)
        Priority picklist(High|Medium|Low)
        Description textarea(32000)
        IsClosed boolean
        ClosedDate datetime
        IsEscalated boolean
        OwnerId reference(User)
        ContactPhone phone(40)
        ContactMobile phone(40)
        ContactEmail email(80)
        ContactFax phone(40)
        Comments textarea(4000)
        LastViewedDate datetime
        LastReferencedDate datetime
        EngineeringReqNumber__c string(12)
        SLAViolation__c picklist(No|Yes)
        Product__c picklist(GC1040|GC1060|GC3020|GC3040|GC3060|GC5020|GC5040|GC5060)
        PotentialLiability__c picklist(No|Yes)
        """,
    ),
    Standard(
        "Task",
        "Task",
        "Tasks",
        "00T",
        600,
        """
        WhoId reference(Contact|Lead)
        WhatId reference(Opportunity|Account|Case)
        Subject combobox(255)
        ActivityDate date
        Status picklist(Not Started|In Progress|Completed|Waiting on someone else|Deferred)
        Priority picklist(High|Normal|Low)
        IsHighPriority boolean
        OwnerId reference(User)
        Description textarea(32000)
        IsClosed boolean
        IsArchived boolean
        AccountId reference(Account)
        CallDurationInSeconds int(8,0)
        CallType picklist(Internal|Inbound|Outbound)
        CallDisposition string(255)
        CallObject string(255)
        ReminderDateTime datetime
        IsReminderSet boolean
        RecurrenceActivityId reference(Task)
        IsRecurrence boolean
        TaskSubtype picklist(Task|Email|ListEmail|Cadence|Call|LinkedIn)
        CompletedDateTime datetime
        """,
    ),
    Standard(
        "Event",
        "Event",
        "Events",
        "00U",
        150,
        """
        WhoId reference(Contact|Lead)
        WhatId reference(Opportunity|Account|Case)
        Subject combobox(255)
        Location string(255)
        IsAllDayEvent boolean
        ActivityDateTime datetime
        ActivityDate date
        DurationInMinutes int(8,0)
        StartDateTime datetime
        EndDateTime datetime
        EndDate date
        Description textarea(32000)
        AccountId reference(Account)
        OwnerId reference(User)
        IsPrivate boolean
        ShowAs picklist(Busy|OutOfOffice|Free)
        IsChild boolean
        IsGroupEvent boolean
        GroupEventType picklist(0|1|2)
        IsArchived boolean
        RecurrenceActivityId reference(Event)
        IsRecurrence boolean
        ReminderDateTime datetime
        IsReminderSet boolean
        EventSubtype picklist(Event)
        """,
    ),
    Standard(
        "User",
        "User",
        "Users",
        "005",
        12,
        f"""
        Username string(80)
        LastName string(80)
        FirstName string(40)
        Name string(121)
        CompanyName string(80)
        Division string(80)
        Department string(80)
        Title string(80)
        {_ADDRESS.format("")}
        Email email(128)
        SenderEmail email(80)
        Signature textarea(1333)
        Phone phone(40)
        Fax phone(40)
        MobilePhone phone(40)
        Alias string(8)
        CommunityNickname string(40)
        IsActive boolean
        TimeZoneSidKey picklist(America/Los_Angeles|America/New_York|Europe/London|Europe/Berlin)
        LocaleSidKey picklist(en_US|en_GB|de_DE)
        ReceivesInfoEmails boolean
        EmailEncodingKey picklist(UTF-8|ISO-8859-1)
        UserType picklist(Standard)
        LanguageLocaleKey picklist(en_US|de)
        EmployeeNumber string(20)
        ManagerId reference(User)
        LastLoginDate datetime
        NumberOfFailedLogins int(9,0)
        ForecastEnabled boolean
        AboutMe textarea(1000)
        """,
    ),
    Standard(
        "Campaign",
        "Campaign",
        "Campaigns",
        "701",
        20,
        """
        Name string(80)
        ParentId reference(Campaign)
        Type picklist(Conference|Webinar|Trade Show|Partners|Referral Program|Other)
        Status picklist(Planned|In Progress|Completed|Aborted)
        StartDate date
        EndDate date
        ExpectedRevenue currency(18,0)
        BudgetedCost currency(18,0)
        ActualCost currency(18,0)
        ExpectedResponse percent(8,2)
        NumberSent double(18,0)
        IsActive boolean
        Description textarea(32000)
        NumberOfLeads int(9,0)
        NumberOfConvertedLeads int(9,0)
        NumberOfContacts int(9,0)
        NumberOfResponses int(9,0)
        NumberOfOpportunities int(9,0)
        NumberOfWonOpportunities int(9,0)
        AmountAllOpportunities currency(18,0)
        AmountWonOpportunities currency(18,0)
        OwnerId reference(User)
        LastActivityDate date
        LastViewedDate datetime
        LastReferencedDate datetime
        """,
    ),
    Standard(
        "Product2",
        "Product",
        "Products",
        "01t",
        30,
        """
        Name string(255)
        ProductCode string(255)
        Description textarea(4000)
        IsActive boolean
        Family picklist(Generators|Services|Spare Parts)
        ExternalId string(255)
        DisplayUrl url(1000)
        QuantityUnitOfMeasure picklist(Each|Hour)
        IsArchived boolean
        LastViewedDate datetime
        LastReferencedDate datetime
        StockKeepingUnit string(180)
        """,
    ),
    Standard(
        "Pricebook2",
        "Price Book",
        "Price Books",
        "01s",
        2,
        """
        Name string(255)
        IsActive boolean
        IsArchived boolean
        Description string(255)
        IsStandard boolean
        LastViewedDate datetime
        LastReferencedDate datetime
        """,
    ),
    Standard(
        "OpportunityLineItem",
        "Opportunity Product",
        "Opportunity Products",
        "00k",
        800,
        """
        OpportunityId reference(Opportunity)
        SortOrder int(9,0)
        Product2Id reference(Product2)
        ProductCode string(255)
        Name string(376)
        Quantity double(12,2)
        TotalPrice currency(18,2)
        UnitPrice currency(18,2)
        ListPrice currency(18,2)
        ServiceDate date
        Description string(255)
        """,
    ),
]

_LINE = re.compile(r"(\w+) (\w+)(?:\((.*)\))?")


def parse_fields(text: str) -> dict[str, Field]:
    """Parse such a description into fields by name, in order."""
    fields = {}
    for line in text.split("\n"):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            continue
        name, kind, detail = found.groups()
        fields[name] = _field(name, kind, detail or "")
    return fields


def _field(name: str, kind: str, detail: str) -> Field:
    match kind:
        case "picklist":
            return Field(name, kind, length=255, values=tuple(detail.split("|")))
        case "reference":
            return Field(name, kind, length=18, targets=tuple(detail.split("|")))
        case "int" | "double" | "currency" | "percent":
            precision, scale = detail.split(",")
            return Field(name, kind, precision=int(precision), scale=int(scale))
        case _:
            return Field(name, kind, length=int(detail or 0))
